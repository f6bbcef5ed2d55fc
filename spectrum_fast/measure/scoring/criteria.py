"""The rules that call a singular value signal or noise, by the name users give them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale, upper_edge
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics

IQR_TO_SIGMA = 1.349
"""Inter-quartile range of a standard normal variable, as rounded by the reference implementation."""

CALIBRATED_SIDE = 32
"""The least short side for which the corrected rule calls less than 1 % of pure noise signal, whatever the long side:
0.8 % of 32 x 32, 1.1 % of 24 x 24; measured from 1 : 1 to 1 : 256."""


@dataclass(frozen=True)
class SpectrumCriterion:
    """The published Spectrum rule; what users compare, hence the default.

    ``threshold = (q75 - q25) / 1.349 * (1 + sqrt(n_min / n_max))`` and
    ``snr = signal_sum / noise_sum / s_max``.

    It is no valid noise test (an inter-quartile range has no location: on pure Gaussian noise a quarter to all of the
    values count as signal) and not scale-free (``snr(10 W) = snr(W) / 10``). Source: arXiv 2406.06623 and the behaviour
    of the reference implementation.
    """

    name: str = "spectrum"
    threshold_power: int = 0

    def threshold(self, statistics: OrderStatistics, n_min: int, n_max: int) -> float:
        """See the class."""
        return (statistics.q75 - statistics.q25) / IQR_TO_SIGMA * (1 + math.sqrt(n_min / n_max))

    def score(self, signal_sum: float, noise_sum: float, s_max: float, threshold: float) -> float:  # noqa: ARG002
        """See the class."""
        return signal_sum / noise_sum / s_max


@dataclass(frozen=True)
class MarchenkoPasturCriterion:
    """The corrected rule: noise scale from the median, threshold at the true Marchenko-Pastur edge.

    ``sigma = q50 / sqrt(n_max mu)`` with ``mu`` the median of the law,
    ``threshold = sigma (sqrt(n_min) + sqrt(n_max))`` and ``snr = (signal_sum / noise_sum) * (threshold / s_max)``:
    the published score with ``s_max`` measured in units of the noise edge, hence scale-free. On pure noise of a short
    side of :data:`CALIBRATED_SIDE` or more less than 1 % of the values lie above the threshold, in the mean over
    matrices; below that more do (8 % of 3 x 3), for the edge is that of infinite matrices and the median of few values
    is uncertain (bench/results/calibration-short-sides.json).
    """

    name: str = "mp"
    threshold_power: int = 1

    def threshold(self, statistics: OrderStatistics, n_min: int, n_max: int) -> float:
        """See the class."""
        return upper_edge(noise_scale(statistics.q50, n_min, n_max), n_min, n_max)

    def score(self, signal_sum: float, noise_sum: float, s_max: float, threshold: float) -> float:
        """See the class."""
        return signal_sum / noise_sum * (threshold / s_max)


_CRITERIA: dict[str, Criterion] = {"spectrum": SpectrumCriterion(), "mp": MarchenkoPasturCriterion()}
CRITERION_NAMES = tuple(_CRITERIA)


def find_criterion(name: str) -> Criterion:
    """The rule called ``name``.

    Raises:
        UsageError: there is no such rule.
    """
    try:
        return _CRITERIA[name]
    except KeyError:
        raise UsageError(f"unknown criterion {name!r}: expected one of {', '.join(CRITERION_NAMES)}") from None
