"""The site as it is built: whole, from nothing but this checkout, and the same bytes each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

from bench.history import merge, run_of
from spectrum_fast.use.cli.app import app
from tools.docs.commands_page import commands_page, examples, iter_commands
from tools.docs.performance_page import ELSEWHERE, RESULTS, calibration_table, performance_page, speed_rows

ROOT = Path(__file__).resolve().parents[2]


def build(target: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "SOURCE_DATE_EPOCH": "1767225600"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    build(target)
    return target


def test_the_search_works_from_the_file_system(site: Path, browser: Any) -> None:
    """No server: a browser starts no worker for a page that is a file, so that a frame stands in for it."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "api.html").as_uri())
    page.keyboard.press("s")
    page.keyboard.type("contour")
    page.wait_for_selector(".md-search-result__item", state="attached", timeout=60_000)
    assert "The engine" in page.locator(".md-search-result__list").inner_text()
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_site_builds_strictly_and_fetches_nothing(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {path.name for path in pages} >= {"index.html", "commands.html", "api.html", "performance.html"}
    for page in pages:
        html = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="([^"]+)"', html)
        assert not [url for url in fetched if re.match(r"(https?:)?//", url)], page.name
        assert not re.findall(r":(?:func|class|mod|meth|data):", html), page.name
        assert "<!-- calibration" not in html
        for source in re.findall(r'<img\b[^>]*src="([^"]+)"', html):
            assert (page.parent / source).resolve().is_file(), source
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"@import|url\(['\"]?https?:", styles)
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert len(index["docs"]) > 50


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path / name)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    different = [
        str(name)
        for name in sorted(files)
        if (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()
    ]
    assert different == []


def test_every_command_and_option_is_on_its_page() -> None:
    page = commands_page()
    paths = [path for path, _ in iter_commands()]
    assert {"scan", "select", "compare", "check", "doctor", "scans list", "scans get", "scans add"} <= set(paths)
    for path, command in iter_commands():
        text = page.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        assert text, path
        for parameter in command.params:
            assert all(f"`{option}" in text for option in parameter.opts if option.startswith("-")), parameter.name
        assert len(examples(command)) == 1, path


@pytest.mark.parametrize(("path", "command"), list(iter_commands()), ids=[path for path, _ in iter_commands()])
def test_the_example_of_every_command_is_accepted(path: str, command) -> None:
    import shlex

    import typer.main

    (line,) = examples(command)
    words = shlex.split(line)
    depth = len(path.split())
    assert words[: depth + 1] == ["spectrum-fast", *path.split()]
    group = typer.main.get_command(app)
    parent = group.make_context("spectrum-fast", words[1:])
    with command.make_context(path, words[depth + 1 :], parent=parent) as context:
        assert len(context.params) == len(command.params)


def test_every_row_of_every_result_is_on_the_performance_page_or_on_its_own() -> None:
    page, pictures = performance_page()
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(headings)
    lines = calibration_table().splitlines()
    grid = sum(line.count(" % ") for line in lines if line.startswith("| short side "))
    shown = {"short-sides": grid, "noise": sum(line.startswith("| ") for line in lines)}
    rows = 0
    for file in sorted(RESULTS.rglob("*.json")):
        name, results = file.relative_to(RESULTS).as_posix(), json.loads(file.read_text(encoding="utf-8"))
        if results.get("kind") == "calibration":
            assert shown[name.removeprefix("calibration-").removesuffix(".json")] >= len(results["rows"])
        if own := [place for kind, (_, place) in ELSEWHERE.items() if name.startswith(kind)]:
            assert f"]({own[0]})" in page
            assert (ROOT / "docs" / own[0]).is_file()
            continue
        text = page.partition(f"`bench/results/{name}`")[2].partition("\n## ")[0]
        assert text, name
        for row in speed_rows(results):
            rows += 1
            (line,) = (line for line in text.splitlines() if line.startswith(f"| `{row['name']}` |"))
            ratio = row.get("info", {}).get("ratio_to_peer")
            assert ("(slower)" in line) == (ratio is not None and ratio < 1)
        (picture,) = (picture for picture in pictures if f"]({picture})" in text)
        assert "times as long" in pictures[picture]
    assert rows > 0


def test_a_result_of_another_layout_is_shown_too() -> None:
    from tools.docs.performance_page import _file_section

    text = _file_section("x.json", {"schema": 1, "rows": [{"a": 1, "b": "x|y"}], "note": "n"})
    assert "| a | b |" in text
    assert "| 1 | x\\|y |" in text
    assert "- note: n" in text


def test_history_keeps_every_state_once() -> None:
    def text(seconds: float, date: str) -> str:
        row = {"name": "a", "median_seconds": seconds, "iqr_seconds": 0.0, "info": {"ratio_to_peer": 2.0}}
        machine = {"git": {"commit": "c" * 40}, "utc_date": date}
        return json.dumps({"schema": 1, "size": "full", "machine": machine, "rows": [row]})

    old, new = run_of("x.json", text(2.0, "2026-01-01")), run_of("x.json", text(1.0, "2026-02-01"))
    assert old is not None
    assert new is not None
    assert old["rows"] == {"a": {"median_seconds": 2.0, "iqr_seconds": 0.0, "ratio_to_peer": 2.0}}
    assert merge([new], [old, new]) == [old, new]
    assert run_of("x.json", "{}") is None
    assert run_of("x.json", '{"machine": {"utc_date": "d"}, "size": "s", "rows": [{"name": "no time"}]}') is None
