"""Which of several processes this one is, as torchrun, or whoever else started them, says in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from spectrum_fast.errors import RankError, SpectrumFastError
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part
from spectrum_fast.system import usable_cores

_Made = TypeVar("_Made")
_LONGEST_SCAN = timedelta(days=30)
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
"""Variables of torchrun, Slurm, Open MPI and MPICH that tell how many processes share this machine."""


@dataclass(frozen=True)
class Rank:
    """One process of several that share a scan.

    Attributes:
        part: its share; the process of part 0 merges all parts and writes the scan file.
        local: its number on this machine, by which it takes a GPU.
        local_count: how many there are on this machine.
        restarts: whether torchrun started it, which takes every exit code but 0 for a crash and may start all anew.
    """

    part: Part
    local: int
    local_count: int
    restarts: bool = False

    def own_options(self, options: ScanOptions) -> ScanOptions:
        """The options as this process takes them: its share of the machine's cores, and a GPU of its own."""
        device = f"cuda:{self.local}" if options.device == "cuda" else options.device
        return replace(options, threads=options.threads or max(1, usable_cores() // self.local_count), device=device)


def find_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """Read ``RANK``, ``WORLD_SIZE`` and, where set, ``LOCAL_RANK`` and its like.

    Returns:
        Which process this is, or None if it is the only one.

    Raises:
        RankError: there are several, but a variable is missing or no number.
    """
    count = _number(environment, "WORLD_SIZE", 1)
    if count <= 1:
        return None
    rank = _number(environment, "RANK")
    if not 0 <= rank < count:
        raise RankError(f"RANK: expected a number from 0 to {count - 1} (WORLD_SIZE is {count}), found {rank}")
    local_count = next(
        (_number(environment, name) for name in _LOCAL_SIZES if environment.get(name, "").isdigit()), count
    )
    return Rank(
        Part(rank, count),
        local=_number(environment, "LOCAL_RANK", rank % local_count),
        local_count=local_count,
        restarts=bool(environment.get("TORCHELASTIC_RUN_ID")),
    )


def from_first_process(make: Callable[[], _Made]) -> _Made:
    """What the first process of torch's group makes, in every process, or its error; the others wait, however long."""
    import torch

    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    answer: list[Any] = [None]
    if alone or torch.distributed.get_rank() == 0:
        try:
            answer = [make()]
        except SpectrumFastError as error:
            answer = [error]
    if not alone:
        patient: Any = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_SCAN)
        torch.distributed.broadcast_object_list(answer, src=0, group=patient)
        torch.distributed.destroy_process_group(patient)
    if isinstance(answer[0], SpectrumFastError):
        raise answer[0]
    return answer[0]


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text:
        raise RankError(
            f"WORLD_SIZE says that several processes share this scan, but {name} is not set; start them with torchrun, "
            "set RANK and WORLD_SIZE for each, say --part, or unset WORLD_SIZE to scan with one process"
        )
    try:
        return int(text)
    except ValueError:
        raise RankError(f"{name}: expected a whole number in the environment, found {text!r}") from None
