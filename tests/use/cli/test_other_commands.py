"""``select``, ``compare``, ``doctor`` and the command line as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spectrum_fast import load_scan, load_selection
from spectrum_fast.version import __version__

from support.processes import script

COMMANDS = (
    "scan",
    "merge",
    "fleet",
    "select",
    "compare",
    "check",
    "eval",
    "laser",
    "pissa",
    "plan",
    "show",
    "report",
    "doctor",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_one_screen_and_has_one_example(inside, command: str) -> None:
    done = inside(command, "--help")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if "spectrum-fast " in line and "Usage" not in line] == [
        line.strip() for line in lines if line.strip().startswith(f"Example: spectrum-fast {command}")
    ]


def test_the_front_page(inside) -> None:
    done = inside("--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 40
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert "Exit codes: 0 done; 1 some tensors failed (named); 2 bad usage or input." in done.stdout
    assert inside("--version").stdout == f"{__version__}\n"
    assert inside().returncode == 2


@pytest.mark.parametrize("arguments", [["scan", "--nonsense", "x"], ["scan"], ["unknown"], ["select", "a", "b"]])
def test_unknown_usage_is_exit_code_2(inside, arguments: list[str]) -> None:
    done = inside(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: spectrum-fast" in done.stderr
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


def test_select_prints_nothing_but_data(run, inside, scanned: Path) -> None:
    done = run("select", scanned)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["top_percent"] == 25
    names = inside("select", scanned, "--format", "names", "--top-percent", "50", "--always", "none")
    assert len(names.stdout.split()) == 7 * 4
    assert names.stderr == ""


def test_select_warns_on_stderr(inside, scanned: Path) -> None:
    done = inside("select", scanned, "--format", "axolotl", "--top-percent", "50")
    assert done.returncode == 0
    assert done.stdout.startswith("unfrozen_parameters:\n- ^lm_head.weight$\n")
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert "warning" not in done.stdout


def test_select_to_a_file_sums_up_on_stderr(inside, scanned: Path, tmp_path: Path) -> None:
    target = tmp_path / "selection.json"
    done = inside("select", scanned, "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert "top 25 %, 14 modules of 56 in 8 groups, and 1 always: model.embed_tokens" in done.stderr
    assert load_selection(target) == load_scan(scanned).select(25)
    assert target.read_text() == inside("select", scanned).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-percent", "101"], "top percent: expected a number in (0, 100], found 101.0"),
        (["--format", "toml"], "unknown format 'toml': expected one of json, axolotl"),
        (["--grouping", "layer"], "unknown grouping 'layer'"),
        (["--rounding", "bankers"], "unknown rounding 'bankers'"),
        (["--exclude", "nope.*"], "exclude: pattern 'nope.*' matches no module"),
        (["-o", "/nowhere/selection.json"], "/nowhere/selection.json: cannot be written: there is no folder /nowhere"),
        (["-o", "{scan}"], "expected another file than the scan that is read"),
    ],
)
def test_bad_selections_are_one_line(inside, scanned: Path, arguments: list[str], message: str) -> None:
    content = scanned.read_bytes()
    done = inside("select", scanned, *(text.format(scan=scanned) for text in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert scanned.read_bytes() == content


@pytest.mark.parametrize("command", ["select", "compare"])
def test_an_unreadable_scan_is_one_line(inside, tmp_path: Path, command: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"schema": 99}')
    for path in (bad, tmp_path / "missing.json", tmp_path):
        done = inside(command, path, *([path] if command == "compare" else []))
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert str(path) in done.stderr


def test_compare(inside, scanned: Path, tiny: Path, tmp_path: Path) -> None:
    same = inside("compare", scanned, scanned)
    assert (same.returncode, same.stderr) == (0, "")
    assert "57 modules in both, 0 only in a, 0 only in b" in same.stdout
    assert "all scores are equal" in same.stdout
    other = tmp_path / "mp.json"
    assert inside("scan", tiny, "--criterion", "mp", "--out", other, "--quiet").returncode == 0
    done = inside("compare", scanned, other, "--top-percent", "50")
    words = " ".join(done.stdout.split())
    assert "tiny0 by spectrum in " in words
    assert "tiny0 by mp in " in words
    assert "scores of two criteria have no common scale" in words
    assert "largest differences" not in done.stdout
    assert "top 50 % of each type: a takes 28, b takes 28, both " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_doctor_says_what_is_there(inside) -> None:
    done = inside("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line[:22].strip() for line in done.stdout.splitlines()]
    for label in ("spectrum_fast", "python", "cores", "backend on cpu", "GPU", "torch", "triton"):
        assert label in labels
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_reader_that_goes_away_is_no_error(run, tiny: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    modules = {f"model.layers.{i}.mlp.up_proj": {"snr": 1.0 + i, "type": "mlp.up_proj"} for i in range(20_000)}
    large.write_text(json.dumps(modules))
    for arguments in (["select", large, "--format", "names", "--top-percent", "100"], ["scan", tiny]):
        command = subprocess.list2cmdline([sys.executable, "-m", "spectrum_fast", *map(str, arguments)])
        done = subprocess.run(
            ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, arguments
        assert "Traceback" not in done.stderr
        assert "Broken" not in done.stderr
        assert "Exception" not in done.stderr


def test_no_color_in_a_terminal(scanned: Path, environment) -> None:
    command = [sys.executable, script("in_a_terminal"), sys.executable, "-m", "spectrum_fast", "compare", str(scanned)]

    def colours(**extra: str) -> bool:
        done = subprocess.run([*command, "missing.json"], capture_output=True, text=True, env=environment(**extra))
        assert "missing.json: cannot be read" in done.stdout
        return "\x1b[1;31m" in done.stdout

    assert colours()
    assert not colours(NO_COLOR="1")
