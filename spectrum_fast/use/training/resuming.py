"""Where a run goes on from, and what it says when another of its processes is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.errors import CheckpointError, RankError
from spectrum_fast.use.training.saving import find_damage, last_whole

if TYPE_CHECKING:
    from spectrum_fast.use.training.arguments import RunArguments

_SIGNS_OF_LOSS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
    "socket timeout",
    "timed out waiting",
    "remote process exited",
    "nccl communicator was aborted",
)
"""What torch's gloo and NCCL back ends say, in lower case, when another process has ended."""


def checkpoint_to_resume(run: RunArguments, say: Callable[[str], None]) -> str | None:
    """The checkpoint folder to go on from; ``true`` means the last whole one in the output folder.

    Raises:
        CheckpointError: there is none, or the one that is named, or every one there is, is not whole.
    """
    wanted = run.given.get("resume_from_checkpoint")
    if not wanted:
        return None
    where = f"{run.source}: resume_from_checkpoint"
    if wanted not in (True, "true"):
        if damage := find_damage(Path(wanted)):
            raise CheckpointError(
                f"{where}: expected a whole checkpoint, found {wanted}, where {damage}; choose another"
            )
        return str(wanted)
    found, passed_over = last_whole(run.output_folder)
    for word in passed_over:
        say(f"warning: {word}")
    if found is None:
        why = "; ".join(["found none", *passed_over[:1]])
        raise CheckpointError(
            f"{where}: expected a whole checkpoint in {run.output_folder}, {why}; drop the key to begin anew "
            "(save_steps: how often one is saved)"
        )
    return str(found)


@contextlib.contextmanager
def lost_processes_explained(home: Path) -> Iterator[None]:
    """Say what has happened and how to go on where a collective failed because another process is gone.

    Raises:
        RankError: that has happened.
    """
    try:
        yield
    except RuntimeError as cause:
        words = str(cause).lower()
        if not any(sign in words for sign in _SIGNS_OF_LOSS):
            raise
        found, _ = last_whole(home)
        rest = (
            f"the last whole checkpoint is {found}; go on from it with --set resume_from_checkpoint=true"
            if found is not None
            else "there is no checkpoint yet; save_steps says how often one is written"
        )
        raise RankError(
            f"another process of this run has ended, and the run with it; {rest} (found by this one as: "
            f"{str(cause).splitlines()[0][:160]})"
        ) from cause
