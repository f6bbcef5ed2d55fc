"""The records of a scan: one score or one failure a tensor, and the whole.

They are plain data. They know neither files (:mod:`spectrum_fast.measure.scoring.scan_file`) nor ranking
(:mod:`spectrum_fast.choose.selection`), and no NaN or infinity can be inside: the constructor refuses them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from spectrum_fast.errors import ScanFileError, TensorError
from spectrum_fast.measure.scoring.json_fields import NEVER_WRITTEN, ONLY_WHERE_KNOWN, Name, type_of
from spectrum_fast.measure.scoring.module_plot import PlottedModule
from spectrum_fast.measure.spectra.record import SingularValues, SpectralSummary


@dataclass(frozen=True, kw_only=True)
class WeightIdentity:
    """Which weight of a checkpoint a line of a scan speaks of; :class:`ModuleScore` describes the fields."""

    name: Name
    type: Name
    parameter: Name | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModuleScore(SpectralSummary[None], WeightIdentity, PlottedModule):
    """The spectrum of one module's weight, under its name; what a published result does not tell is None.

    The functionals of the singular values and the score are those of
    :class:`spectrum_fast.measure.spectra.record.SpectralSummary`; here ``snr`` is None if and only if ``noise_free``.

    Attributes:
        name: module name: the parameter without ``.weight``; unique in a scan.
        type: what follows the first numeric path component of ``name``, or the whole name; the reference's group.
        parameter: full name in the checkpoint: ``...weight``, or bare for fused experts; None where not known.
        shape: of the stored tensor.
        dtype: storage type in the safetensors spelling, e.g. ``BF16``.
        note: why that method, or anything a reader should know.
        parts: how many matrices its parameter is scored in (experts of a fused tensor, parts of a fused projection);
            None where the parameter is one matrix.
        parameter_shape: shape of the whole parameter, if this is a part of it; else None.
        digest: of the stored bytes that it was computed from; None where not known. Takes no part in comparisons.
        singular_values: all of them, where they are stored; in a file of their own, and no part of comparisons.

    Raises:
        TensorError: a number is NaN, infinite, negative or not a number, or ``snr`` contradicts ``noise_free``.
    """

    note: str = ""
    parts: int | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    parameter_shape: tuple[int, ...] | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    digest: str | None = field(default=None, compare=False, metadata=ONLY_WHERE_KNOWN)
    singular_values: SingularValues | None = field(default=None, repr=False, compare=False, metadata=NEVER_WRITTEN)

    def __post_init__(self) -> None:
        if not self.name:
            raise TensorError("a module score needs a name, found an empty one")
        for key, plain in _plain_of(type(self)).items():
            if (value := getattr(self, key)) is not None:
                object.__setattr__(self, key, plain(self.name, key, value))
        if self.noise_free and self.snr is not None:
            raise TensorError(f"{self.name}: a noise-free module has no finite snr, found {self.snr!r}")
        if not self.noise_free and self.snr is None:
            raise TensorError(f"{self.name}: snr is missing though the module is not noise-free")

    @property
    def rank_value(self) -> float:
        """``snr`` for comparisons: ``math.inf`` where the module is noise-free, never NaN."""
        return math.inf if self.snr is None else self.snr

    @property
    def score_range(self) -> tuple[float, float]:
        """Least and largest that the true score may be by ``error_bound``; a bound that is not known counts as 0."""
        bound = self.error_bound or 0.0
        return self.rank_value / (1 + bound), self.rank_value / (1 - bound) if bound < 1 else math.inf

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a fused parameter: an expert, or one of the projections stored in one matrix."""
        return self.parts is not None and self.parameter is not None


def _finite(name: str, key: str, value: Any) -> float:
    """``value`` as a plain float >= 0 (numpy and torch scalars too)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise TensorError(f"{name}: {key} must be a finite number, found {value!r}") from cause
    if not math.isfinite(number) or number < 0 or isinstance(value, (bool, str)):
        raise TensorError(f"{name}: {key} must be a finite number >= 0, found {value!r}")
    return number


def _count(name: str, key: str, value: Any) -> int:
    """``value`` as a plain int >= 0."""
    try:
        number = operator.index(value)
    except TypeError as cause:
        raise TensorError(f"{name}: {key} must be a whole number, found {value!r}") from cause
    if number < 0 or isinstance(value, bool):
        raise TensorError(f"{name}: {key} must be a whole number >= 0, found {value!r}")
    return number


def _counts(name: str, key: str, values: Any) -> tuple[int, ...]:
    return tuple(_count(name, key, value) for value in values)


_PLAIN: dict[Any, Callable[[str, str, Any], Any]] = {float: _finite, int: _count, tuple[int, ...]: _counts}


@cache
def _plain_of(record: type) -> dict[str, Callable[[str, str, Any], Any]]:
    """Field -> what makes its value a plain number, or refuses it; by the field's type."""
    kinds = {key: type_of(hint)[0] for key, hint in get_type_hints(record, include_extras=True).items()}
    return {key: _PLAIN[kind] for key, kind in kinds.items() if kind in _PLAIN}


@dataclass(frozen=True, kw_only=True)
class ScanFailure:
    """A tensor that could not be scored. It has no score at all, rather than a wrong one.

    Attributes:
        name: module name, as in :class:`ModuleScore`.
        kind: one word for programs, e.g. ``nan``, ``infinity``, ``accuracy``.
        message: one sentence for people.
        shape: of the stored tensor, None where not known.
        dtype: storage type, None where not known.
        parameter: full name in the checkpoint; None where not known.
        digest: of the stored bytes that were read, as in :class:`ModuleScore`.
        traceback: of an error that nobody foresaw; for the journal and for a report, not for the scan file.
    """

    name: Name
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    kind: str
    message: str
    parameter: Name | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    digest: str | None = field(default=None, compare=False, metadata=ONLY_WHERE_KNOWN)
    traceback: str = field(default="", repr=False, compare=False, metadata=NEVER_WRITTEN)


class SkippedTensor(NamedTuple):
    """A tensor that was left out on purpose: its module name and the reason in a few words."""

    name: str
    reason: str


@dataclass(frozen=True)
class ScanRecord:
    """All that one scan of one checkpoint found.

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

    @property
    def complete(self) -> bool:
        """Whether every tensor that should have a score has one."""
        return not self.failures

    @property
    def published(self) -> bool:
        """Whether it came from a published file: scores and types only, no thresholds, shapes or error bounds."""
        return self.provenance.get("source") == "published"

    def module(self, name: str) -> ModuleScore:
        """The score of the module called ``name``.

        Raises:
            KeyError: there is none.
        """
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)

    def by_type(self) -> dict[str, tuple[ModuleScore, ...]]:
        """Modules grouped by ``type``; groups in order of first appearance, modules in scan order."""
        groups: dict[str, list[ModuleScore]] = {}
        for module in self.modules:
            groups.setdefault(module.type, []).append(module)
        return {key: tuple(members) for key, members in groups.items()}
