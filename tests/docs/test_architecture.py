"""The page of the house says what is there."""

from __future__ import annotations

import re
from pathlib import Path

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
