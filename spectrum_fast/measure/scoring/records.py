"""The records of a scan: one score or one failure a tensor, and the whole.

They are plain data. They know neither files (:mod:`spectrum_fast.measure.scoring.scan_file`) nor ranking
(:mod:`spectrum_fast.choose.selection`), and no NaN or infinity can be inside: the constructor refuses them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spectrum_fast.errors import ScanFileError, TensorError
from spectrum_fast.measure.spectra.histogram import Histogram

REAL_FIELDS = (
    "s_max",
    "s_min",
    "q25",
    "q50",
    "q75",
    "threshold",
    "signal_sum",
    "noise_sum",
    "error_bound",
    "frobenius_residual",
)
"""Fields of :class:`ModuleScore` that hold a finite float >= 0, or None where it is not known."""

COUNT_FIELDS = ("n_signal", "n_noise", "parts")
"""Fields of :class:`ModuleScore` that hold a whole number >= 0, or None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class ModuleScore:
    """The score of one module's weight and the functionals of its singular values behind it.

    A scan of our own fills every field; a published result knows only ``name``, ``type``, ``snr`` and ``noise_free``,
    and the rest is None.

    Attributes:
        name: module name: the parameter without ``.weight``; unique in a scan.
        type: what follows the first numeric path component of ``name``, or the whole name; the reference's group.
        parameter: full name in the checkpoint: ``...weight``, or bare for fused experts; None where not known.
        shape: of the stored tensor.
        dtype: storage type in the safetensors spelling, e.g. ``BF16``.
        snr: sum of signal over sum of noise singular values over ``s_max``; None if and only if ``noise_free``.
        noise_free: no singular value lies at or below the threshold, so there is nothing to divide by.
        s_max: largest singular value.
        s_min: smallest singular value.
        q25: quantile at 0.25 of the singular values.
        q50: their median.
        q75: quantile at 0.75.
        threshold: boundary between noise (at or below) and signal (above).
        signal_sum: sum of the singular values above the threshold.
        noise_sum: sum of those at or below.
        n_signal: how many lie above.
        n_noise: how many lie at or below.
        error_bound: bound on the relative error of ``snr``, and where noise-free, of ``signal_sum / s_max``.
        method: how it was computed, e.g. ``band-float32``.
        frobenius_residual: relative difference between the squares' sum implied and the exact ``||W||_F^2``.
        note: why that method, or anything a reader should know.
        histogram: how many singular values lie where.
        parts: how many matrices its parameter is scored in (experts of a fused tensor, parts of a fused projection);
            None where the parameter is one matrix.
        parameter_shape: shape of the whole parameter, if this is a part of it; else None.

    Raises:
        TensorError: a number is NaN, infinite, negative or not a number, or ``snr`` contradicts ``noise_free``.
    """

    name: str
    type: str
    snr: float | None
    noise_free: bool = False
    parameter: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    s_max: float | None = None
    s_min: float | None = None
    q25: float | None = None
    q50: float | None = None
    q75: float | None = None
    threshold: float | None = None
    signal_sum: float | None = None
    noise_sum: float | None = None
    n_signal: int | None = None
    n_noise: int | None = None
    error_bound: float | None = None
    method: str | None = None
    frobenius_residual: float | None = None
    note: str = ""
    histogram: Histogram | None = None
    parts: int | None = None
    parameter_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise TensorError("a module score needs a name, found an empty one")
        for key in ("snr", *REAL_FIELDS):
            object.__setattr__(self, key, _finite(self.name, key, getattr(self, key)))
        for key in COUNT_FIELDS:
            object.__setattr__(self, key, _count(self.name, key, getattr(self, key)))
        for key in ("shape", "parameter_shape"):
            if (shape := getattr(self, key)) is not None:
                object.__setattr__(self, key, tuple(operator.index(extent) for extent in shape))
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


def _finite(name: str, key: str, value: Any) -> float | None:
    """``value`` as a plain float >= 0 (numpy and torch scalars too), None stays None."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise TensorError(f"{name}: {key} must be a finite number, found {value!r}") from cause
    if not math.isfinite(number) or number < 0 or isinstance(value, (bool, str)):
        raise TensorError(f"{name}: {key} must be a finite number >= 0, found {value!r}")
    return number


def _count(name: str, key: str, value: Any) -> int | None:
    """``value`` as a plain int >= 0, None stays None."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError as cause:
        raise TensorError(f"{name}: {key} must be a whole number, found {value!r}") from cause
    if number < 0 or isinstance(value, bool):
        raise TensorError(f"{name}: {key} must be a whole number >= 0, found {value!r}")
    return number


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
        traceback: of an error that nobody foresaw; for the journal and for a report, not for the scan file.
    """

    name: str
    kind: str
    message: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    parameter: str | None = None
    traceback: str = field(default="", repr=False, compare=False)


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
