"""Parts of a scan and their merge, as commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_parts_and_merge_are_the_scan_of_one(inside, broken: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "scan.json"
    one = inside("scan", broken, "--out", whole, "--threads", 1)
    for number in (1, 0):
        done = inside("scan", broken, "--out", out, "--threads", 1, "--part", f"{number}/2")
        assert (done.returncode, done.stdout) == (0, ""), "failures are for the merged scan to report"
        assert f"part {number}/2: " in done.stderr
    assert not out.exists()
    merged = inside("merge", *tmp_path.glob("scan.json.part-*"), "--out", out)
    assert merged.returncode == one.returncode == 1
    assert merged.stdout == one.stdout
    assert [line for line in merged.stderr.splitlines() if line.startswith("failed: ")] == [
        line for line in one.stderr.splitlines() if line.startswith("failed: ")
    ]
    assert out.read_bytes() == whole.read_bytes()
    assert len(list(tmp_path.glob("scan.json.part-*"))) == 2, "the parts are the user's to delete"


def test_a_missing_part_is_named(inside, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    inside("scan", tiny, "--out", out, "--part", "0/2", "--criterion", "mp", "--threads", 1)
    done = inside("merge", f"{out}.part-0-of-2", "--out", out)
    assert (done.returncode, done.stdout, out.exists()) == (2, "", False)
    assert "part 1 is not there" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == f"spectrum-fast scan {tiny} --criterion mp --threads 1 --part 1/2 --out {out}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--part", "0/2"), "part 0/2 of a scan is a file beside the scan file: .*found no --out"),
        (("--part", "0/2", "--out", "/dev/null"), "found --out /dev/null"),
        (("--part", "2/2", "--out", "x.json"), "expected I/N, counted from 0"),
    ],
)
def test_a_part_needs_a_place(inside, tiny: Path, arguments: tuple[str, ...], message: str) -> None:
    done = inside("scan", tiny, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr)
