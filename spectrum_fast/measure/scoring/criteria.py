"""What matrices are scored by, under the name users give it: rules that split signal from noise, and quantities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale, upper_edge
from spectrum_fast.measure.scoring.quantities import (
    PEFT_GUARD,
    Quantity,
    SpectrumView,
    effective_rank,
    energy,
    kappa,
    mp_rank,
    spectral_norm,
    stable_rank,
)
from spectrum_fast.measure.scoring.split import NO_BOUND
from spectrum_fast.measure.scoring.tail_exponent import alpha
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics, Spectrum, relative_error

if TYPE_CHECKING:
    from spectrum_fast.measure.scoring.records import ModuleScore

IQR_TO_SIGMA = 1.349
"""Inter-quartile range of a standard normal variable, as rounded by the reference implementation."""

CALIBRATED_SIDE = 32
"""The least short side for which the corrected rule calls less than 1 % of pure noise signal, whatever the long side:
0.8 % of 32 x 32, 1.1 % of 24 x 24; measured from 1 : 1 to 1 : 256."""


class _Rule(Criterion):
    """What the two rules share."""

    def edge(self, statistics: OrderStatistics, n_min: int, n_max: int) -> float:
        """``sigma (sqrt(n_min) + sqrt(n_max))`` with the noise scale sigma from the median."""
        return upper_edge(noise_scale(statistics.q50, n_min, n_max), n_min, n_max)


@dataclass(frozen=True)
class SpectrumCriterion(_Rule):
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
class MarchenkoPasturCriterion(_Rule):
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
        return self.edge(statistics, n_min, n_max)

    def score(self, signal_sum: float, noise_sum: float, s_max: float, threshold: float) -> float:
        """See the class."""
        return signal_sum / noise_sum * (threshold / s_max)


@dataclass(frozen=True)
class QuantityCriterion(SpectrumCriterion):
    """A criterion that scores by one number of the spectrum; threshold and sums are those of the published rule.

    Attributes:
        name: of the criterion.
        quantity: from a :class:`~spectrum_fast.measure.scoring.quantities.SpectrumView` to the number, or to the number
            and a bound on its absolute error.
        smallest_first: the matrices of the smallest numbers rank first; the score is then one over the number.
        bound: of the score's relative error, where the engine shall go on until it is met.
    """

    name: str = ""
    quantity: Quantity = spectral_norm
    smallest_first: bool = False
    bound: Callable[[OrderStatistics, OrderStatistics], float] | None = None

    def score_error(self, statistics: OrderStatistics, errors: OrderStatistics, of_sums: float) -> float:
        """See the class."""
        return of_sums if self.bound is None else self.bound(statistics, errors)

    def finish(self, found: Spectrum) -> Spectrum:
        """With the score of this criterion."""
        score = self.score_of([found])
        return replace(found, **score | {"error_bound": score["error_bound"] or 0.0})

    def measure(self, module: ModuleScore | Spectrum) -> tuple[float, float | None]:
        """The number, and a bound on its absolute error; None where the function of a user states none.

        Raises:
            UsageError: the scan lacks what it is made of, a user's function failed, or it is no finite number >= 0.
        """
        view = SpectrumView(module)
        try:
            found = self.quantity(view)
            value, error = found if isinstance(found, tuple) else (found, None)
            value, error = float(value), None if error is None else float(error)
        except UsageError:
            raise
        except Exception as cause:
            raise UsageError(f"criterion {self.name} of {view.name}: {type(cause).__name__}: {cause}") from cause
        if not 0 <= value < math.inf:
            raise UsageError(f"criterion {self.name} of {view.name}: expected a finite number >= 0, found {value!r}")
        return value, error

    def score_of(self, modules: Sequence[ModuleScore | Spectrum]) -> dict[str, Any]:
        """``snr``, ``noise_free`` and ``error_bound`` of a matrix, or of a parameter: the mean over its parts."""
        measured = [self.measure(module) for module in modules]
        value = sum(one for one, _ in measured) / len(measured)
        errors = [error for _, error in measured if error is not None]
        error = sum(errors) / len(measured) if len(errors) == len(measured) else None
        relative = error and (error / (value - error) if error < value else NO_BOUND)  # of it, and of one over it
        first = self.smallest_first and value == 0.0
        score = None if first else 1 / value if self.smallest_first else value
        return {
            "snr": score,
            "noise_free": first,
            "error_bound": None if relative is None else min(relative, NO_BOUND),
        }


def _kappa_bound(statistics: OrderStatistics, errors: OrderStatistics) -> float:
    return relative_error([(errors.s_max, statistics.s_max), (errors.s_min, statistics.s_min + PEFT_GUARD)])


_CRITERIA: dict[str, Criterion] = {
    rule.name: rule
    for rule in (
        SpectrumCriterion(),
        MarchenkoPasturCriterion(),
        QuantityCriterion("kappa", quantity=kappa, smallest_first=True, bound=_kappa_bound),
        QuantityCriterion("stable-rank", quantity=stable_rank),
        QuantityCriterion("effective-rank", quantity=effective_rank),
        QuantityCriterion("alpha", quantity=alpha, smallest_first=True),
        QuantityCriterion("spectral-norm", quantity=spectral_norm),
        QuantityCriterion("mp-rank", quantity=mp_rank),
        QuantityCriterion("energy", quantity=energy),
    )
}
ScanCriterion: TypeAlias = Literal["spectrum", "mp", "kappa"]
"""What a scan can be made for, which sets how accurate it must be; the others follow from a scan that is made."""
CriterionName: TypeAlias = Literal[
    "spectrum", "mp", "kappa", "stable-rank", "effective-rank", "alpha", "spectral-norm", "mp-rank", "energy"
]
"""What a scan can be selected by, beside the criteria of users."""


def criterion(name: str, *, smallest_first: bool = False) -> Callable[[Quantity], Quantity]:
    """Decorator: make a function of a spectrum a criterion of this name.

    Its argument has every number of a module's line in a scan by its name (``s_max``, ``q50``, ``frobenius_norm``...),
    and ``values`` and ``bounds`` where spectra are stored; it returns a finite number >= 0, or that and a bound on its
    absolute error.

    >>> @criterion("top-share")
    ... def top_share(spectrum):
    ...     return (spectrum.s_max / spectrum.frobenius_norm) ** 2

    Args:
        name: a new one.
        smallest_first: the matrices of the smallest numbers rank first.

    Raises:
        UsageError: one of the package's own has that name.
    """
    known = _CRITERIA.get(name)
    if known is not None and getattr(known, "quantity", spectral_norm).__module__.startswith(__package__ or ""):
        raise UsageError(f"criterion {name!r} is one of the package's own: choose another name")

    def register(quantity: Quantity) -> Quantity:
        _CRITERIA[name] = QuantityCriterion(name, quantity=quantity, smallest_first=smallest_first)
        return quantity

    return register


def find_criterion(name: str) -> Criterion:
    """The rule called ``name``.

    Raises:
        UsageError: there is no such rule.
    """
    try:
        return _CRITERIA[name]
    except KeyError:
        raise UsageError(f"unknown criterion {name!r}: expected one of {', '.join(_CRITERIA)}") from None


def quantities_of(module: ModuleScore) -> dict[str, float]:
    """The number of every criterion that is one of the spectrum, as far as the module has what it is made of."""
    found: dict[str, float] = {}
    for name, rule in _CRITERIA.items():
        if isinstance(rule, QuantityCriterion):
            with suppress(UsageError):  # it lacks something
                found[name] = rule.measure(module)[0]
    return found
