"""A cycle of the soak in the common suite; ``make soak`` is the half hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trust.soaking import judge

MIB = 2**20


def test_two_cycles_end_in_the_same_bytes_and_leave_nothing(tmp_path: Path) -> None:
    script, out = Path(__file__).with_name("soak.py"), tmp_path / "soak.json"
    command = [sys.executable, str(script), "--minutes", "0", "--cycles", "2", "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["problems"] == []
    assert results["scans_compared"] == 1 + sum(results["disturbances"].values())
    assert set(results["disturbances"].values()) == {2}


def rows(memory_mib: list[float], **last: int) -> list[dict[str, int]]:
    counts = {"descriptors": 10, "threads": 4, "children": 2, "files": 13}
    found = [{"rss_bytes": int(value * MIB), **counts} for value in memory_mib]
    return [*found[:-1], found[-1] | last]


def test_noise_is_flat_and_a_leak_is_not() -> None:
    noisy = [300 + (7 * index) % 11 for index in range(120)]
    assert judge(rows(noisy), 1800)[1] == []
    leaking = [value + 0.2 * index for index, value in enumerate(noisy)]
    assert "memory grew" in judge(rows(leaking), 1800)[1][0]
    late = [*noisy[:-30], *(value + 20 for value in noisy[-30:])]
    assert "memory grew" in judge(rows(late), 1800)[1][0]


@pytest.mark.parametrize("key", ["descriptors", "threads", "children", "files"])
def test_one_more_of_anything_is_a_problem(key: str) -> None:
    problems = judge(rows([300.0] * 20, **{key: 14}), 300)[1]
    assert len(problems) == 1
    assert problems[0].startswith(key)
