"""``spectrum-fast report`` and ``show``, and the map at the end of ``scan``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spectrum_fast import load_scan

from support import scans
from support.processes import script


def test_scan_ends_with_the_map(run, inside, tiny: Path, tmp_path: Path) -> None:
    done = inside("scan", tiny)
    lines = done.stdout.splitlines()
    assert "rank within its type by layer: ▁ last, █ first" in lines
    assert any(line.startswith("type") and "best layers" in line for line in lines)
    assert max(map(len, lines)) <= 80
    ascii_only = run("scan", tiny, "--include", "*.mlp.*", cwd=tmp_path, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert ascii_only.returncode == 0
    assert ascii_only.stdout.isascii()
    assert "rank within its type by layer: . last, @ first" in ascii_only.stdout


def test_show_draws_on_stdout(inside, scanned: Path) -> None:
    done = inside("show", scanned, "model.layers.3.mlp.up_proj")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("model.layers.3.mlp.up_proj\n")
    assert "Marchenko-Pastur edge" in done.stdout
    assert "rank " in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_show_suggests_names(inside, scanned: Path) -> None:
    done = inside("show", scanned, "model.layers.3.mlp.upp_proj")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nearest: model.layers.3.mlp.up_proj" in done.stderr.replace("\n", " ")


def test_report_writes_one_file(inside, scanned: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = inside("report", scanned, "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.replace("\n", "") == f"wrote {target}"
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Content-Security-Policy" in page
    assert "http://" not in page
    assert "https://" not in page
    assert target.stat().st_size < 3_000_000
    again = tmp_path / "again.html"
    inside("report", scanned, "-o", again)
    assert again.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.json", "-o", "r.html"], "missing.json: cannot be read"),
        (["SCAN", "-o", "SCAN"], "expected another file than a scan that is read"),
        (["SCAN", "-o", "nowhere/r.html"], "there is no folder"),
        (["SCAN", "-o", "r.html", "--top-percent", "0"], "expected a number in (0, 100]"),
        (["SCAN"], "Missing option '--output'"),
    ],
)
def test_bad_usage_writes_nothing(
    inside, scanned: Path, tmp_path: Path, monkeypatch, arguments: list, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = scanned.read_bytes()
    done = inside("report", *(str(scanned) if argument == "SCAN" else argument for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
    assert scanned.read_bytes() == before


def test_without_plotly_the_message_says_what_to_install(scanned: Path, tmp_path: Path) -> None:
    words = ["plotly,plotly.offline", "report", str(scanned), "-o", str(tmp_path / "r.html")]
    command = [sys.executable, script("command_without"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install 'spectrum-fast[report]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_old_scan_files_without_histograms_are_read(inside, tmp_path: Path) -> None:
    target = tmp_path / "scan.json"
    scans.dense_model(layers=2).save(target)
    text = target.read_text().replace('"histogram": {', '"older": {')
    target.write_text(text)
    assert load_scan(target).modules[1].histogram is None
    done = inside("show", target, "model.layers.0.mlp.up_proj")
    assert "this scan file holds no histograms" in " ".join(done.stdout.split())
