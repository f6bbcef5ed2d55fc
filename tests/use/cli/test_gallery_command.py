"""``spectrum-fast gallery``: a report for every scan of a library, and what is left out is named."""

from __future__ import annotations

from pathlib import Path

from spectrum_fast import load_scan
from spectrum_fast.choose.library import open_library


def test_every_scan_has_its_report_and_a_broken_one_is_named(inside, scanned: Path, tmp_path: Path) -> None:
    folder, site = tmp_path / "library", tmp_path / "site"
    folder.mkdir()
    open_library(str(folder)).add(load_scan(scanned), model="org/tiny #2")
    (folder / "snr_results_broken.json").write_text("{")
    done = inside("gallery", folder, "-o", site)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("left out: ")
    assert "snr_results_broken.json" in "".join(done.stderr.splitlines()[:-1])
    assert done.stderr.splitlines()[-1] == f"wrote {site / 'index.html'}"
    page = (site / "index.html").read_text("utf-8")
    assert "<h1>Scans: 1</h1>" in page
    assert page.count("<svg") == 1
    assert 'href="reports/org-tiny%20%232.spectrum.html"' in page
    assert [path.name for path in (site / "reports").iterdir()] == ["org-tiny #2.spectrum.html"]


def test_bad_input_is_one_line_and_writes_nothing(inside, tmp_path: Path) -> None:
    for arguments in (["no/such/place", "-o", tmp_path / "a"], [tmp_path, "-o", tmp_path / "b"]):
        done = inside("gallery", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert not list(tmp_path.iterdir())
