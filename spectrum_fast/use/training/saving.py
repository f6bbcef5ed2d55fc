"""Checkpoints of a run that are whole or not there at all, whatever is killed, and the one that a run goes on from.

A checkpoint is written by all processes into ``output_dir/_saving/checkpoint-N``. Once all of them are through, its
files are flushed to the disk, ``files.json`` lists them with their sizes, and one rename gives the folder its place. A
folder ``output_dir/checkpoint-N`` is therefore complete; one that lost something since, or that another program was
killed in the middle of, is told by :func:`find_damage` and never gone on from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.temporary import flush

if TYPE_CHECKING:
    from spectrum_fast.use.training.arguments import RunArguments

STAGING_NAME = "_saving"
"""Folder in ``output_dir`` where checkpoints are written; a leading ``_`` keeps transformers from uploading it."""
LIST_NAME = "files.json"
STATE_NAME = "trainer_state.json"
"""The trainer's own, which it writes last."""


def finish(staged: Path, home: Path) -> Path:
    """Give a folder that all processes have written its place in ``home``; an older one of the same name makes room.

    Raises:
        CheckpointError: a file cannot be flushed, listed or renamed; checkpoints in ``home`` are as they were.
    """
    target = home / staged.name
    with _explained(target, "the checkpoint"):
        files = sorted(path for path in staged.rglob("*") if path.is_file() and path != staged / LIST_NAME)
        for path in files:
            flush(path)
        sizes = {path.relative_to(staged).as_posix(): path.stat().st_size for path in files}
        text = json.dumps({"schema": 1, "kind": "checkpoint", "files": sizes}, indent=1) + "\n"
        write_text_atomic(staged / LIST_NAME, text, error=CheckpointError)
        return _place(staged, target)


def tidy(home: Path) -> list[Path]:
    """Clear what a killed run left in the staging folder; call it before a run writes there.

    A checkpoint that was complete but for its name gets it, and is in the list that is given; halves are deleted.
    """
    placed = []
    for staged in checkpoints(home / STAGING_NAME):
        if (staged / LIST_NAME).is_file() and not find_damage(staged):
            with contextlib.suppress(OSError):
                placed.append(_place(staged, home / staged.name))
    shutil.rmtree(home / STAGING_NAME, ignore_errors=True)
    return placed


def checkpoints(home: Path) -> list[Path]:
    """Folders called ``checkpoint-N``, by N."""
    from transformers.trainer_utils import sort_checkpoints

    return [Path(path) for path in sort_checkpoints(str(home))]


def find_damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint of the trainer; empty if it is whole.

    With our list every file must have its size; without it (another program's checkpoint) the trainer's state, which is
    written last, must be there and readable.
    """
    try:
        if not (checkpoint / LIST_NAME).exists():
            int(_read(checkpoint / STATE_NAME)["global_step"])
            return ""
        sizes = dict(_read(checkpoint / LIST_NAME)["files"])
    except FileNotFoundError:
        return f"{STATE_NAME}, which is written last, is missing"
    except (OSError, ValueError, KeyError, TypeError) as cause:
        return f"what it says about itself cannot be read ({cause})"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name}: expected {size} bytes, found {path.stat().st_size}"
    return ""


def last_whole(home: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and a word about each newer one that is not."""
    passed_over = []
    for checkpoint in reversed(checkpoints(home)):
        damage = find_damage(checkpoint)
        if not damage:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint} is passed over: {damage}")
    return None, passed_over


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


def move_into(staged: Path, home: Path) -> None:
    """Move a finished model's files into the output folder one by one, each whole.

    Raises:
        CheckpointError: one cannot be moved.
    """
    with _explained(home, "the model"):
        for path in sorted(staged.iterdir()):
            flush(path)
            target = home / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
        staged.rmdir()
        _leave(staged.parent)
        flush(home)


@contextlib.contextmanager
def _explained(target: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise CheckpointError(
            f"{target}: {what} cannot be saved: {cause.strerror or cause}; make room and rights there and go on with "
            "resume_from_checkpoint: true"
        ) from cause


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _place(staged: Path, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)  # what takes its place is whole; killed here, the next run gives it that
    os.rename(staged, target)
    _leave(staged.parent)
    flush(target.parent)
    return target


def _leave(staging: Path) -> None:
    """Remove the staging folder if nothing is in the making there."""
    with contextlib.suppress(OSError):
        staging.rmdir()
