"""The training recipes are read by the command's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs.recipes_page import FOLDER, TITLES, recipes_page

RECIPES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_accepted_and_on_the_page(path: Path) -> None:
    pytest.importorskip("trl")
    from spectrum_fast.use.training.arguments import read_run

    read_run(path)
    assert path.read_text().rstrip() in recipes_page()


def test_the_cases_that_people_ask_for_are_there() -> None:
    assert set(TITLES) <= {path.stem for path in RECIPES}
