"""The scores of all scans of a library in one SQLite file: which layers of which models have a noise-free ``v_proj``?

The index is made from the scan files, which stay the truth: one that is missing, damaged or of another version is made
anew, and :meth:`LibraryIndex.refresh` reads again what is new or has changed. Names of modules, which are nearly the
same in every model of a family, are kept once; a score takes about thirty bytes.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from spectrum_fast.choose.library.file_names import stored_files
from spectrum_fast.choose.library.stores import FolderStore
from spectrum_fast.choose.selection.scan_result import Scan, parse_scan
from spectrum_fast.errors import ScanFileError, SpectrumFastError
from spectrum_fast.read.checkpoint.naming import layer_index

FILE_NAME = "index.sqlite"
_VERSION = 1
_TABLES = """
CREATE TABLE scans (id INTEGER PRIMARY KEY, file TEXT UNIQUE, stamp TEXT, model TEXT, criterion TEXT, problem TEXT);
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT, type TEXT, layer INTEGER, UNIQUE (name, type));
CREATE TABLE scores (name INTEGER, scan INTEGER, score REAL, PRIMARY KEY (name, scan)) WITHOUT ROWID;
CREATE INDEX scores_of_scan ON scores (scan);
"""
_BY_NAME = "names CROSS JOIN scores ON scores.name = names.id CROSS JOIN scans ON scans.id = scores.scan"
_BY_SCAN = "scans CROSS JOIN scores ON scores.scan = scans.id CROSS JOIN names ON names.id = scores.name"
"""The two orders to look in, which SQLite keeps to: it cannot know how few scans a pattern leaves."""


class FoundModule(NamedTuple):
    """One answer.

    Attributes:
        model: as the scan names it.
        criterion: ``spectrum`` or ``mp``.
        name: of the module.
        type: its group.
        layer: its number, or None for a module outside the layers.
        score: its snr; infinite where it is noise-free.
    """

    model: str
    criterion: str
    name: str
    type: str
    layer: int | None
    score: float


class LibraryIndex:
    """The index of a library in a folder; a context manager.

    Args:
        folder: of the library.

    Raises:
        ScanFileError: on entering: the index cannot be opened or made there. So do all methods when it fails later.
    """

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)
        self._path = folder / FILE_NAME

    def __enter__(self) -> LibraryIndex:
        try:
            self._open()
        except sqlite3.DatabaseError:
            with suppress(OSError):
                self._path.unlink()  # a damaged one, or of another version
            with self._explained():
                self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def refresh(self) -> dict[str, str]:
        """Take in what is new or has changed in the folder, and drop what is gone.

        Returns:
            file -> why it cannot be read, for those that cannot.
        """
        preferred = [files[0] for files in stored_files(self._store.names()).values()]
        with self._explained(), self._connection:
            known = dict(self._connection.execute("SELECT file, stamp FROM scans"))
            for file in known.keys() - set(preferred):
                self._drop(file)
            for file in preferred:
                state = (self._store.path / file).stat()
                stamp = f"{state.st_size} {state.st_mtime_ns}"
                if known.get(file) == stamp:
                    continue
                try:
                    self.add(file, stamp, parse_scan(self._store.read(file), file))
                except SpectrumFastError as error:
                    self._drop(file)
                    self._connection.execute(
                        "INSERT INTO scans (file, stamp, problem) VALUES (?, ?, ?)", (file, stamp, str(error))
                    )
            return dict(
                self._connection.execute("SELECT file, problem FROM scans WHERE problem IS NOT NULL ORDER BY file")
            )

    def add(self, file: str, stamp: str, scan: Scan) -> None:
        """Put a scan in, in place of what is there from the same file; written with the transaction that is open."""
        self._drop(file)
        cursor = self._connection.execute(
            "INSERT INTO scans (file, stamp, model, criterion) VALUES (?, ?, ?, ?)",
            (file, stamp, scan.model, scan.criterion),
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO names (name, type, layer) VALUES (?, ?, ?)",
            ((module.name, module.type, layer_index(module.name)) for module in scan.modules),
        )
        self._connection.executemany(
            "INSERT INTO scores SELECT id, ?, ? FROM names WHERE name = ? AND type = ?",
            ((cursor.lastrowid, module.rank_value, module.name, module.type) for module in scan.modules),
        )

    def find(
        self,
        *,
        model: str | None = None,
        type: str | None = None,
        criterion: str | None = None,
        layers: tuple[int, int] | None = None,
        scores: tuple[float, float] | None = None,
        noise_free: bool = False,
        limit: int = -1,
    ) -> Iterator[FoundModule]:
        """Modules that meet every condition given, the best scores first.

        Args:
            model: shell-style pattern of the model's name.
            type: of modules, or its last component (``v_proj``); shell-style patterns too.
            criterion: ``spectrum`` or ``mp``.
            layers: first and last layer.
            scores: least and largest score.
            noise_free: only modules without noise.
            limit: most answers; negative for all.
        """
        conditions = {
            "model GLOB ?": model and [model],
            "criterion = ?": criterion and [criterion],
            "(type GLOB ? OR type GLOB '*.' || ?)": type and [type, type],
            "layer BETWEEN ? AND ?": layers,
            "score BETWEEN ? AND ?": scores,
            "score = ?": [math.inf] if noise_free else None,
        }
        given = {condition: values for condition, values in conditions.items() if values}
        question = (
            f"SELECT model, criterion, names.name, type, layer, score FROM {_BY_NAME if model is None else _BY_SCAN} "  # noqa: S608
            f"WHERE {' AND '.join(given) or 1} ORDER BY score DESC, model, criterion, layer, names.name LIMIT ?"
        )
        with self._explained():
            for row in self._connection.execute(question, [*chain(*given.values()), limit]):
                yield FoundModule(*row)

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path)
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        if self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._connection.close()
            raise sqlite3.DatabaseError(f"version {version}")
        self._connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")

    def _drop(self, file: str) -> None:
        found = self._connection.execute("SELECT id FROM scans WHERE file = ?", (file,)).fetchone()
        if found is not None:
            self._connection.execute("DELETE FROM scores WHERE scan = ?", found)
            self._connection.execute("DELETE FROM scans WHERE id = ?", found)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ScanFileError(
                f"{self._path}: the index cannot be read or written: {error}; make room and rights for it, or delete "
                "it: it is made anew from the scan files"
            ) from error
