"""The scan: what one found in a checkpoint, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectrum_fast.choose.selection.compare import ScanComparison, compare_scans
from spectrum_fast.choose.selection.formats.scan_file import format_scan, read_scan_text
from spectrum_fast.choose.selection.fused import fused_modules
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.presented_scan import frame_of, html_of, map_of, relation_of
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import ScanFileError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.measure.scoring.stored_spectra import with_spectra, write_spectra
from spectrum_fast.options import takes_options
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.words import near_names_text


@dataclass(frozen=True, repr=False)
class Scan:
    """All that one scan of one checkpoint found: a sequence of modules, which can be selected from, saved and shown.

    Attributes:
        model: as the user named it (a path or a hub id); for a published file the slug in its name.
        criterion: name of the rule behind the scores, ``spectrum`` or ``mp``.
        modules: one score a module, in scan order; names are unique.
        failures: tensors that could not be scored.
        ties: duplicate module -> module that was scored for both.
        skipped: tensors left out on purpose.
        provenance: how the scan was made; plain JSON values only.
        run: of a scan that was just made, what passed by in making it: date, times, processes, modules taken over from
            a journal. It is no part of the scan: it is not in the file and two scans are equal whatever it holds.

    Raises:
        ScanFileError: two modules (or a module and a failure) have the same name, or one has control characters.
    """

    model: str
    criterion: str
    modules: tuple[ModuleScore, ...]
    failures: tuple[ScanFailure, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[SkippedTensor, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for key in ("modules", "failures"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        object.__setattr__(self, "skipped", tuple(SkippedTensor(*entry) for entry in self.skipped))
        seen: set[str] = set()
        for entry in (*self.modules, *self.failures):
            if entry.name in seen:
                raise ScanFileError(f"scan of {self.model}: expected each module once, found {entry.name!r} twice")
            if not (entry.name + getattr(entry, "type", "")).isprintable():  # it would act where it is written
                raise ScanFileError(f"scan of {self.model}: expected printable names and types, found {entry.name!r}")
            seen.add(entry.name)

    def __len__(self) -> int:
        """How many modules have a score."""
        return len(self.modules)

    def __iter__(self) -> Iterator[ModuleScore]:
        """The modules, in scan order."""
        return iter(self.modules)

    def __getitem__(self, name: str) -> ModuleScore:
        """The module of this name, or the parameter that its parts make; the names of weights and duplicates do too.

        Raises:
            KeyError: there is none (the message has the nearest names), or it has no score (the message says why).
        """
        wanted = module_name(str(name))
        wanted = self.ties.get(wanted, wanted)
        found = next((module for module in self.modules if module.name == wanted), None)
        found = found or next((module for module in fused_modules(self) if module.name == wanted), None)
        if found is not None:
            return found
        why = {one.name: f"{name} has no score ({one.kind}): {one.message}" for one in self.failures}
        why |= {one.name: f"{name} was not scored: {one.reason}" for one in self.skipped}
        near = near_names_text(wanted, [module.name for module in self.modules])
        raise KeyError(why.get(wanted, f"no module {name!r}{near}"))

    module = __getitem__

    def __contains__(self, module: object) -> bool:
        """Whether ``scan[module]`` finds one, or this very module."""
        try:
            return self[str(getattr(module, "name", module))] == module or isinstance(module, str)
        except KeyError:
            return False

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Scan of {self.model}{relation_of(self)}: {len(self)} modules by {self.criterion}{failed}>"

    @property
    def complete(self) -> bool:
        """Whether every tensor that should have a score has one."""
        return not self.failures

    @property
    def published(self) -> bool:
        """Whether it came from a published file: scores and types only, no thresholds, shapes or error bounds."""
        return self.provenance.get("source") == "published"

    def by_type(self) -> dict[str, tuple[ModuleScore, ...]]:
        """Modules grouped by ``type``; groups in order of first appearance, modules in scan order."""
        groups: dict[str, list[ModuleScore]] = {}
        for module in self.modules:
            groups.setdefault(module.type, []).append(module)
        return {key: tuple(members) for key, members in groups.items()}

    @takes_options(SelectOptions)
    def select(self, options: SelectOptions) -> Selection:
        """Take the best share of each group, or, as a control, as many others.

        Args:
            options: keywords, each of :class:`spectrum_fast.choose.selection.options.SelectOptions`.

        Returns:
            the selection; groups in scan order, also those that nothing was taken from.

        Raises:
            SelectionError: the scan is incomplete, holds nothing to select from, or a pattern matches nothing.
            UsageError: an argument is out of range.
        """
        return select_with(self, options)

    def compare(self, other: Scan, top_percent: float = 25) -> ScanComparison:
        """Compare with another scan; see :func:`spectrum_fast.choose.selection.compare.compare_scans`."""
        return compare_scans(self, other, top_percent)

    def save(self, path: str | Path) -> None:
        """Write the scan file, whole or not at all, and all singular values beside it where they are kept.

        See :mod:`spectrum_fast.choose.selection.formats.scan_file` and ``measure.scoring.stored_spectra``.

        Raises:
            ScanFileError: the target cannot be written or ``provenance`` is not strict JSON; an old file is unchanged.
        """
        text = format_scan(self)
        write_spectra(self.modules, text, path)
        write_text_atomic(path, text, error=ScanFileError)

    to_frame = frame_of
    """A row a module: :func:`spectrum_fast.choose.selection.presented_scan.frame_of`."""

    plot = map_of
    """A map of types by layers: :func:`spectrum_fast.choose.selection.presented_scan.map_of`."""

    _repr_html_ = html_of


def load_scan(path: str | Path) -> Scan:
    """Read a scan file of this package, or a result published by the reference implementation in either layout.

    Raises:
        ScanFileError: the file is missing, empty, of an unknown schema, or an entry is not what it should be.
    """
    text = read_text(path, error=ScanFileError)
    scan = parse_scan(text, str(path))
    return replace(scan, modules=with_spectra(scan.modules, text, path))


def parse_scan(text: str, source: str = "scan") -> Scan:
    """Read a scan from text; ``source`` is what to call it in messages."""
    fields = read_scan_text(text, source)
    try:
        return Scan(**fields)
    except ScanFileError as cause:
        raise ScanFileError(f"{source}: {cause}") from cause
