"""The pages over a library: every scan that can be read has its report, names stay names, and the search finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from spectrum_fast import Scan
from spectrum_fast.choose.library import open_library
from spectrum_fast.errors import UsageError
from spectrum_fast.use.report.html.gallery import write_gallery

from support import scans

PUBLISHED = Path(__file__).parents[5] / "shared" / "data" / "published_snr"


def library(folder: Path, *models: str) -> Path:
    """A folder with a small scan of each of these models."""
    folder.mkdir()
    opened = open_library(str(folder))
    for place, model in enumerate(models):
        names = [f"model.layers.{layer}.mlp.{kind}_proj" for layer in range(4) for kind in ("up", "down")]
        modules = [scans.scored(name, 1.0 + (7 * index + place) % 8) for index, name in enumerate(names)]
        opened.add(Scan(model, "spectrum", tuple(modules)))
    return folder


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    folder = library(tmp_path / "library", "org/first")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="expected a folder to write to"):
        write_gallery(open_library(str(folder)), tmp_path / "file")


def test_the_search_finds_and_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    hostile = [name for name in scans.HOSTILE if name.isprintable() and len(name) < 100]
    folder = library(tmp_path / "library", "org/first-7B", "org/second-70B", *hostile)
    write_gallery(open_library(str(folder)), tmp_path / "site")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / "site" / "index.html").as_uri())
    rows = page.locator("#scans > li")
    assert rows.count() == 2 + len(hostile)
    assert page.evaluate("window.pwned") is None
    assert page.locator("#scans img, #scans script, #scans iframe").count() == 0
    for words, shown in (
        ("70b ORG", ["org/second-70B"]),
        ("org/", ["org/first-7B", "org/second-70B"]),
        ("no such", []),
    ):
        page.get_by_label("Search models").fill(words)
        assert rows.locator("visible=true").locator("b").all_text_contents() == shown
        assert page.get_by_text("No model's name").is_visible() == (not shown)
    page.get_by_label("Search models").fill("second")
    page.get_by_role("link").filter(visible=True).click()
    page.wait_for_selector("html[data-ready]", state="attached", timeout=90_000)
    assert "second-70B" in page.title()
    assert complaints == []
    page.close()


def test_a_scan_is_shown_under_the_name_that_it_is_filed_under(tmp_path: Path) -> None:
    """Most checkpoints lie in a folder called ``model``; who adds one with ``--model org/name`` searches for that."""
    folder = library(tmp_path / "library", "model")
    opened = open_library(str(folder))
    opened.add(opened.load("model"), model="org/name")
    assert write_gallery(opened, tmp_path / "site") == {}
    shown = re.findall("<b>(.*?)</b>", (tmp_path / "site" / "index.html").read_text("utf-8"))
    assert shown == ["model", "org-name"]
    assert "<title>org-name" in (tmp_path / "site" / "reports" / "org-name.spectrum.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no published scans here")
def test_published_scans_are_shown(tmp_path: Path) -> None:
    problems = write_gallery(open_library(str(PUBLISHED)), tmp_path)
    there = {path.name.removesuffix(".spectrum.html") for path in (tmp_path / "reports").iterdir()}
    files = {path.stem.removeprefix("snr_results_") for path in PUBLISHED.glob("*.json")}
    left_out = {name.removeprefix("snr_results_").removesuffix(".json") for name in problems}
    assert there | left_out == files
    empty = {path.stem for path in PUBLISHED.glob("*.json") if path.stat().st_size < 3}
    assert {f"snr_results_{name}" for name in left_out} == empty
