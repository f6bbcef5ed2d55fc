"""What the engine knows about one matrix: the functionals of its singular values that a score needs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from spectrum_fast.checks import ONLY_WHERE_KNOWN
from spectrum_fast.errors import TensorError
from spectrum_fast.measure.spectra.histogram import Histogram

Unknown = TypeVar("Unknown", bound=None, covariant=True)
"""What stands for a number that is not known: None where that may be, nothing at all where all are known."""
_NOT_KNOWN: Any = None


@dataclass(frozen=True)
class OrderStatistics:
    """Linear-interpolated quantiles and extremes of the singular values of one matrix.

    Attributes:
        s_min: smallest of the ``min(m, n)`` singular values.
        q25: quantile at 0.25, linear interpolation between order statistics (``torch.quantile``'s default).
        q50: median.
        q75: quantile at 0.75.
        s_max: largest singular value.
    """

    s_min: float
    q25: float
    q50: float
    q75: float
    s_max: float


@dataclass(frozen=True)
class ErrorBounds(OrderStatistics):
    """Bounds on the absolute error of the numbers of these names, against exact arithmetic on the same weights.

    They are as sure as the score's bound, of which they are the parts: docs/trust.md says what is measured, what is
    the worst case and what a model. Values that float64 cannot tell from zero (``eps * max(m, n) * s_max``) count as
    zero, as in the score. A bound that is not known is the largest number of float64.

    Attributes:
        s_min: of the smallest singular value.
        q25: of the quantile at 0.25.
        q50: of the median.
        q75: of the quantile at 0.75.
        s_max: of the largest singular value.
        threshold: of the boundary between noise and signal.
        signal_sum: of the sum above it, values included whose side is not known.
        noise_sum: of the sum at or below it, likewise.
        n_undecided: values whose side is not known: ``n_signal`` and ``n_noise`` are off by no more.
        mp_rank: of ``mp_rank``, likewise; None in files from before it was counted.

    Raises:
        TensorError: a bound is negative or no finite number.
    """

    threshold: float
    signal_sum: float
    noise_sum: float
    n_undecided: int
    mp_rank: int | None = field(default=None, metadata=ONLY_WHERE_KNOWN)

    def __post_init__(self) -> None:
        if not all(0 <= bound < math.inf for bound in vars(self).values() if bound is not None):
            raise TensorError(f"errors: expected finite bounds >= 0, found {vars(self)}")


class Criterion(ABC):
    """A rule that splits singular values into signal and noise and turns the split into a score.

    Attributes:
        name: the word used for it on the command line and in files.
        threshold_power: with which power the threshold enters the score itself: 0 or 1.
    """

    name: str
    threshold_power: int

    @abstractmethod
    def threshold(self, statistics: OrderStatistics, n_min: int, n_max: int) -> float:
        """The boundary: values above it are signal, values at or below it are noise."""

    @abstractmethod
    def edge(self, statistics: OrderStatistics, n_min: int, n_max: int) -> float:
        """Where the largest singular value of pure noise lies, by the median: ``mp_rank`` counts the values above."""

    @abstractmethod
    def score(self, signal_sum: float, noise_sum: float, s_max: float, threshold: float) -> float:
        """The score of a matrix whose noise set is not empty; larger means more signal."""

    def score_error(self, statistics: OrderStatistics, errors: OrderStatistics, of_sums: float) -> float:  # noqa: ARG002
        """Bound on the relative error of the score.

        Args:
            statistics: as computed.
            errors: bounds on the absolute error of each.
            of_sums: the bound for ``signal_sum / noise_sum / s_max``, which it is of a rule.
        """
        return of_sums

    def finish(self, found: Spectrum) -> Spectrum:
        """The record with the score that is no quotient of sums; as it is where it is one."""
        return found


@dataclass(frozen=True, kw_only=True)
class SpectralSummary(Generic[Unknown]):
    """The singular spectrum of one matrix, reduced to what scores and reports use.

    Whatever keeps, writes, reads or shows a score takes the fields from here: their order is that in files, their type
    says what a file may hold. A further one is declared here and computed in the engine. ``Unknown`` is None where one
    may be missing, as in a published file, which knows ``snr`` alone.

    Attributes:
        snr: the score; None when the noise set is empty (``noise_free``), for there is nothing to divide by, or when
            it cannot be told whether it is empty (``error_bound`` is infinite).
        noise_free: no value (or only exact zeros) lies at or below the threshold, so the ratio has no finite value.
        s_max: largest singular value.
        s_min: smallest singular value.
        q25: quantile at 0.25 of the singular values.
        q50: median of the singular values.
        q75: quantile at 0.75 of the singular values.
        threshold: boundary between noise (at or below) and signal (above).
        signal_sum: sum of the singular values above the threshold.
        noise_sum: sum of the singular values at or below the threshold.
        n_signal: how many lie above.
        n_noise: how many lie at or below.
        error_bound: bound on the relative error of ``snr`` against exact arithmetic on the same weights; where nothing
            is divided (``noise_free``, or a score of zero), of the quotient of those of ``signal_sum``, ``noise_sum``
            and ``s_max`` that are not zero.
        method: how it was computed, e.g. ``band-float32``, ``band-float32-rotated``, ``band-float64``,
            ``svd-float64``.
        frobenius_residual: relative difference between the sum of squares that the method's spectrum implies and
            ``||W||_F^2`` summed independently in float64; a check, near rounding when all is well.
        errors: bounds on the absolute errors of ``s_min`` to ``n_noise``; None in files from before it was stated, and
            of a fused parameter. ``histogram`` has none: a value within ``errors`` of an edge may count beside it.
        frobenius_norm: ``||W||_F``, summed in float64: relative error below ``max(m, n) eps``; None in files from
            before it was kept, and of a fused parameter.
        mp_rank: how many singular values lie above the Marchenko-Pastur edge of criterion ``mp``, whatever the
            criterion; likewise.
        left_cosine: of a difference whose angles to its base were asked for: cosine of the smallest angle between the
            subspaces of the leading left singular vectors of both, ``mp_rank`` of each, 32 at most.
        left_overlap: mean squared cosine of all principal angles between the two: 1 where the subspaces are the same,
            about ``mp_rank / m`` where they have nothing to do with each other.
        right_cosine: likewise of right singular vectors.
        right_overlap: likewise.
        histogram: how many singular values lie where.
    """

    snr: float | None
    noise_free: bool = False
    s_max: float | Unknown = _NOT_KNOWN
    s_min: float | Unknown = _NOT_KNOWN
    q25: float | Unknown = _NOT_KNOWN
    q50: float | Unknown = _NOT_KNOWN
    q75: float | Unknown = _NOT_KNOWN
    threshold: float | Unknown = _NOT_KNOWN
    signal_sum: float | Unknown = _NOT_KNOWN
    noise_sum: float | Unknown = _NOT_KNOWN
    n_signal: int | Unknown = _NOT_KNOWN
    n_noise: int | Unknown = _NOT_KNOWN
    error_bound: float | Unknown = _NOT_KNOWN
    method: str | Unknown = _NOT_KNOWN
    frobenius_residual: float | Unknown = _NOT_KNOWN
    errors: ErrorBounds | Unknown = field(default=_NOT_KNOWN, metadata=ONLY_WHERE_KNOWN)
    frobenius_norm: float | Unknown = field(default=_NOT_KNOWN, metadata=ONLY_WHERE_KNOWN)
    mp_rank: int | Unknown = field(default=_NOT_KNOWN, metadata=ONLY_WHERE_KNOWN)
    left_cosine: float | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    left_overlap: float | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    right_cosine: float | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    right_overlap: float | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    histogram: Histogram | Unknown = _NOT_KNOWN

    def summary(self) -> dict[str, Any]:
        """These fields by name, of whatever they are part of."""
        return {key: getattr(self, key) for key in SUMMARY_FIELDS}


SUMMARY_FIELDS = tuple(one.name for one in fields(SpectralSummary))


@dataclass(frozen=True, eq=False)
class SingularValues:
    """All singular values of one matrix.

    Attributes:
        values: (n,) float64, descending.
        bounds: (n,) bounds on the absolute error of each, as sure as :class:`ErrorBounds`.
    """

    values: npt.NDArray[np.float64]
    bounds: npt.NDArray[np.float64]

    def scaled(self, scale: float) -> SingularValues:
        """Of the matrix times ``scale``, a power of two; what is below the least numbers is cut off."""
        lost = math.ulp(0.0) if scale < 1 else 0.0
        return self if scale == 1 else SingularValues(self.values * scale, self.bounds * scale + lost)


@dataclass(frozen=True, kw_only=True)
class Spectrum(SpectralSummary[NoReturn]):
    """The summary of one matrix's spectrum, all of it known but its angles to a base, which a scan adds.

    Attributes:
        shape: rows and columns of the matrix.
        criterion: name of the rule behind ``threshold`` and ``snr``.
        reason: why that method was used, in a few words.
        singular_values: all of them, where they were asked for.
    """

    shape: tuple[int, int]
    criterion: str
    reason: str
    singular_values: SingularValues | None = field(default=None, repr=False, compare=False)


def relative_error(parts: Sequence[tuple[float, float]]) -> float:
    """Bound on that of a product or quotient of values, from the absolute error of each; infinite if one may be zero.

    ``prod_i 1 / (1 - x_i) - 1`` covers the computed number against the true one and the true one against it.
    """
    if any(error >= value for error, value in parts):
        return math.inf
    return math.expm1(-sum(math.log1p(-error / value) for error, value in parts))
