"""The page's table of one scan beside its peers is that of the committed results."""

from __future__ import annotations

import json

from bench.one_scan import BEGIN, END, PAGE, RESULTS, format_table


def test_the_page_has_the_committed_figures() -> None:
    page = PAGE.read_text()
    shown = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == format_table(json.loads(RESULTS.read_text())), "write it: python -m bench.one_scan table"
