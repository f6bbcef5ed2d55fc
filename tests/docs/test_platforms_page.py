"""What docs/platforms.md says was tried is what the committed result holds, and only that."""

from __future__ import annotations

import json
import re

from spectrum_fast.measure.spectra.engine import SMALL_SIDE_OF_REFERENCE
from tools.docs.platform_tables import (
    COLUMNS,
    INSTALLS_MARK,
    RESULTS,
    TRIED_MARK,
    WITHOUT_MARK,
    describe,
    fill_in_platforms,
    place,
)
from tools.install import PURE


def test_a_cell_says_what_was_run_or_why_not() -> None:
    page = (RESULTS.parents[1] / "docs" / "platforms.md").read_text("utf-8")
    assert page.count(TRIED_MARK) == 1
    lines = fill_in_platforms(TRIED_MARK).splitlines()[2:-2]
    cells = {}
    for line in lines:
        python, *found = line.strip("| ").split(" | ")
        cells |= {(python, column): cell for column, cell in zip(COLUMNS, found, strict=True)}
    results = json.loads((RESULTS / "platforms.json").read_text("utf-8"))
    ran = {place(row) for row in results["rows"]}
    for row in results["rows"]:
        assert describe(row) in cells[place(row)]
        assert ("emulated" in describe(row)) == row["emulated"]
    for where, cell in cells.items():
        assert ("installed" in cell) == (where in ran)
        assert cell.startswith("not run: ") == (where not in ran)
    assert ran.isdisjoint((lack["python"], lack["column"]) for lack in results["not_run"])


def test_readme_says_how_to_install_and_what_that_takes() -> None:
    """The package is on no index: no page may say otherwise (extras of an installed package resolve without one)."""
    root = RESULTS.parents[1]
    readme = (root / "README.md").read_text("utf-8")
    for row in json.loads((RESULTS / "platforms.json").read_text("utf-8"))["installs"]:
        assert f"{row['megabytes'] / 1000:.1f} GB, for {row['processor_seconds']:.0f}" in readme
        assert f"| {row['processor_seconds']:.0f} s |" in fill_in_platforms(INSTALLS_MARK)
    settings = " ".join(f"-C {name}={value}" for name, value in PURE.items())
    assert f"pip install . {settings} " in readme
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        assert not re.search(r"pip install spectrum-fast(?!\[)", page.read_text("utf-8")), page.name


def test_the_cost_without_the_extension_is_the_measured_one() -> None:
    """Also of the words in notes and pages (2 to 25 times), and of the side up to which the SVD is taken."""
    page = (RESULTS.parents[1] / "docs" / "platforms.md").read_text("utf-8")
    assert page.count(WITHOUT_MARK) == 1
    rows = json.loads((RESULTS / "without-extension.json").read_text("utf-8"))["rows"]
    assert len(fill_in_platforms(WITHOUT_MARK).splitlines()) == len(rows) + 4
    for row in rows:
        assert 2 <= round(min(row["svd"], row["reference"]) / row["extension"]) <= 25
        height, width = map(int, row["name"].split(" x "))
        if height == width <= SMALL_SIDE_OF_REFERENCE:
            assert row["svd"] < row["reference"]
