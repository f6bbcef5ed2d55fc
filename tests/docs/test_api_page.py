"""The page on Python has every public name, from where it lives."""

from __future__ import annotations

from pathlib import Path

import pytest

import spectrum_fast as sf

PAGES = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", [name for name in dir(sf) if name != "__version__"])
def test_every_public_name_is_on_the_page(name: str) -> None:
    value = getattr(sf, name)
    page = (PAGES / "api.md").read_text()
    lines = {line.strip() for line in page.splitlines()}
    assert lines & {f"::: {value.__module__}.{name}", f"::: {value.__module__}"}
    assert f"`sf.{name}`" in page or f".{name}" in page
