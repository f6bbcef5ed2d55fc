"""Which process of several this one is, from the environment."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from spectrum_fast.errors import RankError
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part
from spectrum_fast.scanning.ranks import Rank, find_rank
from spectrum_fast.system import usable_cores

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_the_environment_of_torchrun_is_understood() -> None:
    assert find_rank(TORCHRUN) == Rank(Part(3, 8), 1, 2, restarts=True)


def test_a_plain_environment_is_understood() -> None:
    plain = {"RANK": "0", "WORLD_SIZE": "4"}
    assert find_rank(plain) == Rank(Part(0, 4), 0, 4)
    assert find_rank({**plain, "RANK": "3", "SLURM_NTASKS_PER_NODE": "2"}) == Rank(Part(3, 4), 1, 2)
    assert find_rank({}) is None
    assert find_rank({**TORCHRUN, "WORLD_SIZE": "1"}) is None


def test_a_process_takes_its_share_of_the_cores() -> None:
    assert Rank(Part(0, 4), 0, 1).own_options(ScanOptions()).threads == usable_cores()
    assert Rank(Part(0, 4), 0, 1000).own_options(ScanOptions()).threads == 1
    assert Rank(Part(0, 4), 0, 1).own_options(ScanOptions(threads=3)).threads == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": ""}, "RANK is not set; start them with torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number in the environment, found 'two'"),
        ({"RANK": "8"}, r"RANK: expected a number from 0 to 7 \(WORLD_SIZE is 8\), found 8"),
    ],
)
def test_half_an_environment_is_refused(changes: Mapping[str, str], message: str) -> None:
    with pytest.raises(RankError, match=message):
        find_rank({**TORCHRUN, **changes})
