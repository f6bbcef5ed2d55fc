"""What docs/platforms.md says was tried is what the committed result holds, and only that."""

from __future__ import annotations

import json

from tools.docs.platform_tables import RESULTS, TRIED_MARK, fill_in_platforms


def test_a_row_for_every_run_and_no_other() -> None:
    page = (RESULTS.parents[1] / "docs" / "platforms.md").read_text("utf-8")
    assert page.count(TRIED_MARK) == 1
    table = fill_in_platforms(TRIED_MARK).splitlines()[2:-2]
    rows = json.loads((RESULTS / "platforms.json").read_text("utf-8"))["rows"]
    assert len(table) == len(rows) > 0
    for line, row in zip(table, rows, strict=True):
        cells = line.split(" | ")
        assert cells[0] == f"| {row['python']}"
        assert cells[2].startswith(f"`{row['wheel']}`")
        assert ("emulated" in line) == row["emulated"]
        assert ("no extension" in line) != row["extension"]
