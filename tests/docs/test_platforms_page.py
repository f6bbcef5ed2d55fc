"""What docs/platforms.md says was tried is what the committed result holds, and only that."""

from __future__ import annotations

import json

from tools.docs.platform_tables import COLUMNS, RESULTS, TRIED_MARK, describe, fill_in_platforms, place


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
