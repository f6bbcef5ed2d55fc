"""A library of scans: what is in it, one scan out of it, one scan into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spectrum_fast.choose.library.file_names import reference_file_name, slug, stored_files, whole_file_name
from spectrum_fast.choose.library.stores import HUB_PREFIX, FolderStore, HubStore
from spectrum_fast.choose.selection.formats import write_scores
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.scan_result import Scan, parse_scan
from spectrum_fast.errors import ScanFileError, SpectrumFastError
from spectrum_fast.read.checkpoint.hub import parse_hub_id
from spectrum_fast.words import near_names_text


@dataclass(frozen=True, kw_only=True)
class LibraryEntry:
    """One scan of a library.

    Attributes:
        slug: the model's name with ``/`` and ``_`` as ``-``.
        criterion: ``spectrum`` or ``mp``.
        files: its files, the one that is read first.
        modules: how many scores it holds; None if it was not read or cannot be.
        types: how many module types; None likewise.
        problem: why it cannot be read; empty if it can, or was not tried.
    """

    slug: str
    criterion: str
    files: tuple[str, ...]
    modules: int | None = None
    types: int | None = None
    problem: str = ""


class Library:
    """A collection of scans in a folder or a dataset repository; made by :func:`open_library`."""

    def __init__(self, store: FolderStore | HubStore) -> None:
        self._store = store
        self.where = store.where
        """The place, for messages."""

    def entries(self, *, read: bool = True) -> list[LibraryEntry]:
        """Every scan, by slug; one that cannot be read is listed with its problem.

        Args:
            read: open every file. Without, only names are known; on the hub that is one request.

        Raises:
            ScanFileError: the place itself cannot be listed.
        """
        groups = stored_files(self._store.names()).items()
        known = [LibraryEntry(slug=name, criterion=criterion, files=files) for (name, criterion), files in groups]
        return list(map(self._with_counts, known)) if read else known

    def load(self, model: str, criterion: str = "spectrum") -> Scan:
        """The scan of a model.

        Args:
            model: the model's name, or its slug.
            criterion: ``spectrum`` or ``mp``.

        Raises:
            ScanFileError: there is none (the message lists near names), or its file is broken.
        """
        return self._read(model, criterion)[1]

    def read(self, model: str, criterion: str = "spectrum") -> str:
        """The text of a model's scan file, as it lies there, once it has proved readable.

        Raises:
            ScanFileError: as :meth:`load`.
        """
        return self._read(model, criterion)[0]

    def add(self, scan: Scan, *, model: str | None = None, replace: bool = False) -> tuple[str, ...]:
        """Put a scan in: whole, and for the ``spectrum`` criterion in the reference's layout too, for other readers.

        Args:
            scan: the scan; a published one (scores only) is written in the reference's layout alone.
            model: name to file it under; None takes the scan's own.
            replace: overwrite a scan of the same model.

        Returns:
            names of the files written.

        Raises:
            ScanFileError: the scan has failures (the reference's layout has no place for them), the model is there
                already, or the place cannot be written.
        """
        name = scan.model if model is None else model
        if not slug(name).strip("-."):
            raise ScanFileError(f"scan of {scan.model!r}: expected a model's name to file it under, found {name!r}")
        if scan.failures:
            raise ScanFileError(
                f"scan of {scan.model}: {len(scan.failures)} tensors have no score; a library holds complete scans: "
                "repair the checkpoint or leave these tensors out of the scan (--exclude)"
            )
        texts = {}
        if not scan.published:
            texts[whole_file_name(name, scan.criterion)] = format_scan(scan)
        if scan.criterion == "spectrum":
            texts[reference_file_name(name)] = write_scores(scan, "reference")
        there = set(self._store.names())
        taken = sorted(file for file in texts if file in there and self._store.read(file) != texts[file])
        if taken and not replace:
            raise ScanFileError(
                f"{self.where}: holds another {taken[0]} already; add it with --replace, or under another --model"
            )
        self._store.write(texts, f"Scan of {name}, criterion {scan.criterion}")
        return tuple(texts)

    def _read(self, model: str, criterion: str) -> tuple[str, Scan]:
        groups = stored_files(self._store.names())
        files = groups.get((slug(model), criterion))
        if files is None:
            known = [name for name, rule in groups if rule == criterion]
            raise ScanFileError(
                f"{self.where}: no scan of {model!r} by the criterion {criterion!r} among {len(known)}"
                f"{near_names_text(slug(model), known)}"
            )
        text = self._store.read(files[0])
        return text, parse_scan(text, f"{self.where}/{files[0]}")

    def _with_counts(self, entry: LibraryEntry) -> LibraryEntry:
        first = entry.files[0]
        try:
            found = parse_scan(self._store.read(first), first)
        except SpectrumFastError as error:
            return replace(entry, problem=str(error))
        return replace(entry, modules=len(found.modules), types=len(found.by_type()))


def open_library(place: str) -> Library:
    """Open a collection of scans.

    Args:
        place: a folder, or a dataset on the hub: ``org/name[@revision]`` or ``hf://datasets/org/name[@revision]``.
            Files are looked for there and in its folder ``model_snr_results``.

    Raises:
        ScanFileError: there is no such folder and it can be no dataset's name.
    """
    if not place.startswith(HUB_PREFIX):
        path = Path(place)
        if path.is_dir():
            return Library(FolderStore(path))
        if path.exists():
            raise ScanFileError(f"{place}: expected a folder with scans, found a file; read one scan with load_scan")
    parsed = parse_hub_id(place.removeprefix(HUB_PREFIX))
    if parsed is None:
        raise ScanFileError(
            f"{place}: no such folder, and not a dataset on the hub either (org/name or {HUB_PREFIX}org/name); "
            "check the spelling or make the folder first"
        )
    return Library(HubStore(*parsed))
