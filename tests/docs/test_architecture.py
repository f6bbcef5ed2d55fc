"""The page of the house says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_walk_is_one_line_of_files_that_exist() -> None:
    stops = re.findall(r"^\d+\. `([\w/]+\.py)`:", PAGE, re.MULTILINE)
    assert 10 <= len(stops) <= 15
    assert len(set(stops)) == len(stops)
    for stop in stops:
        assert (ROOT / "spectrum_fast" / stop).is_file(), stop


def test_every_room_of_the_table_exists_and_no_package_is_left_out() -> None:
    rooms = re.findall(r"^\| `(spectrum_fast/[\w/]+)/`", PAGE, re.MULTILINE)
    for room in rooms:
        assert (ROOT / room / "__init__.py").is_file(), room
    packages = {path.parent for wing in ("read", "measure", "choose", "use") for path in
                (ROOT / "spectrum_fast" / wing).glob("*/__init__.py")}  # fmt: skip
    missing = {str(path.relative_to(ROOT)) for path in packages} - set(rooms)
    assert not missing


ROWS = re.findall(r"^\| (`[\w/]+/`.*?) \| (.*)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("rooms", "text"), ROWS, ids=[rooms for rooms, _ in ROWS])
def test_what_a_row_names_is_in_its_room(rooms: str, text: str) -> None:
    places = [ROOT / room for room in re.findall(r"`([\w/]+)/`", rooms)]
    for name in re.findall(r"`([\w./]+(?:/|\.(?:py|cpp|hpp|cmake|md|yml)))`", text):
        assert (ROOT / name).exists() or any(any(place.rglob(name.rstrip("/"))) for place in places), name
