"""``spectrum-fast scans`` over a folder; the hub is in ``tests/choose/library``."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrum_fast import load_scan


def test_add_list_get(inside, scanned: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    nothing = inside("scans", "list", library)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no file here is named snr_results_*.json" in nothing.stderr
    added = inside("scans", "add", library, scanned, "--model", "org/tiny")
    assert (added.returncode, added.stdout) == (0, "")
    assert added.stderr.splitlines() == [
        f"wrote scan_org-tiny.spectrum.json in {library}",
        f"wrote snr_results_org-tiny.json in {library}",
    ]
    listed = inside("scans", "list", library)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[2].split() == ["org-tiny", "spectrum", "57", "8", "whole", "scan"]
    got = inside("scans", "get", library, "org/tiny")
    assert (got.returncode, got.stderr, got.stdout) == (0, "", scanned.read_text())
    inside("scans", "get", library, "org/tiny", "-o", tmp_path / "again.json")
    assert load_scan(tmp_path / "again.json") == load_scan(scanned)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "no/such/place"], "no such folder, and not a dataset on the hub either"),
        (["get", "{library}", "org/other"], "no scan of 'org/other'"),
        (["add", "{library}", "missing.json"], "missing.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line(inside, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = inside("scans", *(text.format(library=tmp_path) for text in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize("command", ["list", "get", "add"])
def test_help_fits_one_screen_and_has_one_example(inside, command: str) -> None:
    done = inside("scans", command, "--help")
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines) <= 24, max(map(len, lines)) <= 80) == (0, True, True)
    assert sum(line.strip().startswith(f"Example: spectrum-fast scans {command}") for line in lines) == 1
