"""``spectrum-fast fleet`` and what is asked of its library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def test_a_fleet_ends_with_a_table_of_what_failed(inside, tiny: Path, broken: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "models" / "good")
    shutil.copytree(broken, tmp_path / "models" / "broken")
    command = ("fleet", f"{tmp_path}/models/*", "--library", tmp_path / "library", "--threads", 1)
    done = inside(*command)
    assert done.returncode == 1
    assert "scanned: good: 57 modules" in done.stderr
    assert "2 checkpoints: 1 scanned, 0 kept, 1 failed" in done.stderr
    assert done.stdout.split()[:3] == ["model", "tried", "why"]
    assert "broken" in done.stdout
    assert "have no score" in " ".join(done.stdout.split())
    again = inside(*command, "--quiet")
    assert "1 kept, 1 failed" in again.stderr
    assert "kept: good" not in again.stderr
    asked = inside("scans", "find", tmp_path / "library", "--type", "up_proj", "--layers", "2-4", "--json")
    assert asked.returncode == 0
    found = [json.loads(line) for line in asked.stdout.splitlines()]
    assert sorted(module["layer"] for module in found) == [2, 3, 4]
    assert {module["model"] for module in found} == {"good"}
    assert [module["score"] for module in found] == sorted((module["score"] for module in found), reverse=True)
    table = inside("scans", "find", tmp_path / "library", "--min", 0.0001, "--limit", 3)
    assert len(table.stdout.splitlines()) >= 4


def test_bad_usage_is_one_line(inside, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("org/name\n")
    refused = inside("fleet", tmp_path / "list", "--library", tmp_path / "l", "--out", tmp_path / "x.json")
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
    assert "--out: expected none" in refused.stderr
    for arguments, message in ((("--layers", "x"), "--layers: expected A-B"), ((), "expected the folder of a library")):
        refused = inside("scans", "find", tmp_path / "nowhere", *arguments)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
        assert message in refused.stderr
