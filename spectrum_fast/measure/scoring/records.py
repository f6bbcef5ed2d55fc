"""The records of a scan: one score or one failure a tensor.

They are plain data; no NaN or infinity can be inside: the constructor refuses them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from spectrum_fast.errors import TensorError
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
