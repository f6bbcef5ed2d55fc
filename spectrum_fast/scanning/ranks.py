"""Which of several processes this one is, as torchrun, or whoever else started them, says in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from spectrum_fast.errors import RankError
from spectrum_fast.scanning.threads import usable_cores

_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
"""Variables of torchrun, Slurm, Open MPI and MPICH that tell how many processes share this machine."""


@dataclass(frozen=True)
class Rank:
    """One process of several that share a scan.

    Attributes:
        rank: its number; rank 0 keeps the journal and writes the scan file.
        count: how many there are.
        local: its number on this machine, by which it takes a GPU.
        local_count: how many there are on this machine.
        host: where the store is.
        port: of the store.
        hosts_store: whether this process has to start the store; torchrun brings its own.
        run: name of the launch, the same through its restarts.
        attempt: how often torchrun has started all processes anew.
    """

    rank: int
    count: int
    local: int
    local_count: int
    host: str
    port: int
    hosts_store: bool
    run: str = ""
    attempt: int = 0

    @property
    def restarts(self) -> bool:
        """Whether torchrun started it, which takes every exit code but 0 for a crash and may start all anew."""
        return bool(self.run)

    @property
    def threads(self) -> int:
        """CPU threads that are this process's share of the machine."""
        return max(1, usable_cores() // self.local_count)


def find_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """Read ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT`` and, where set, ``LOCAL_RANK`` and its like.

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
    host = environment.get("MASTER_ADDR", "")
    if not host:
        raise _missing("MASTER_ADDR")
    local_count = next(
        (_number(environment, name) for name in _LOCAL_SIZES if environment.get(name, "").isdigit()), count
    )
    return Rank(
        rank=rank,
        count=count,
        local=_number(environment, "LOCAL_RANK", rank % local_count),
        local_count=local_count,
        host=host,
        port=_number(environment, "MASTER_PORT"),
        hosts_store=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        run=environment.get("TORCHELASTIC_RUN_ID", ""),
        attempt=_number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
    )


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text:
        raise _missing(name)
    try:
        return int(text)
    except ValueError:
        raise RankError(f"{name}: expected a whole number in the environment, found {text!r}") from None


def _missing(name: str) -> RankError:
    return RankError(
        f"WORLD_SIZE says that several processes share this scan, but {name} is not set; start them with torchrun, set "
        "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each, or unset WORLD_SIZE to scan with one process"
    )
