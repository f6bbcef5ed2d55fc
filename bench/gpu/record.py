"""One result file a call of ``bench/gpu.sh``: its steps are processes that add to it one after the other, row by row.

It is written whole after every row, so that whoever is stopped, and wherever, takes nothing with it. What is computed
only to be compared with, the truth of a shape, is kept there too: the next step need not compute it again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import machine_header
from bench.results_file import SCHEMA, format_table, read_results, write_results


class Record:
    """What has been measured so far.

    Args:
        path: of the file, which may be there from an earlier step; None to write nothing.
        rehearse: whether its numbers mean nothing.
    """

    def __init__(self, path: Path | None, *, rehearse: bool = False) -> None:
        self._path = path
        if path is not None and path.exists():
            self.results = read_results(path)
            return
        size = "rehearsal" if rehearse else "full"
        self.results: dict[str, Any] = {"schema": SCHEMA, "size": size, "machine": machine_header(), "rows": []}
        self.results |= {"failures": [], "skipped": [], "truth": {}}
        self._write()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of all steps."""
        return self.results["rows"]

    def add(self, row: dict[str, Any]) -> None:
        """One more row; takes the place of an earlier one of the same name."""
        self.results["rows"] = [*(one for one in self.rows if one["name"] != row["name"]), row]
        self._write()

    def note(self, kind: str, line: str) -> None:
        """A line more among the ``failures``, or among what was ``skipped``."""
        self.results[kind].append(line)
        self._write()

    def known(self, key: str, make: Callable[[], Any]) -> Any:
        """A value of the device or of a shape, made the first time only."""
        if key not in self.results["truth"]:
            self.results["truth"][key] = make()
            self._write()
        return self.results["truth"][key]

    def text(self, begin: int = 0) -> str:
        """Rows from one on, and all that went wrong, for people."""
        rows = self.rows[begin:]
        table = format_table({**self.results, "rows": rows}) if rows else "no rows"
        failures = [f"FAILED  {line}" for line in self.results["failures"]]
        return "\n".join([table, *failures, *(f"skipped {line}" for line in self.results["skipped"])])

    def _write(self) -> None:
        if self._path is not None:
            write_results(self._path, self.results)
