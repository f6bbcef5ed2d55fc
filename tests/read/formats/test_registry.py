"""Every registered format holds together, and the page about formats is made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrum_fast.read.formats.format import Format
from spectrum_fast.read.formats.registry import FORMATS
from tools.docs.formats_table import PAGE, with_table

HERE = Path(__file__).parent


def test_the_page_has_the_table_of_the_registered_formats() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "write it anew: python -m tools.docs.formats_table"
    assert all(form.row in page for form in FORMATS)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.title)
def test_a_format_speaks_of_roles_that_it_has(form: Format) -> None:
    roles = set(form.companions.values())
    assert {*form.marks, *form.required, *form.types} <= roles | {"codes"}
    assert form.row.count(" | ") in (0, 4)
    assert all((HERE / part).exists() for part in form.row.split("`") if part.endswith(".py"))
    assert form.plan is None or form.row
