"""What a spectrum says in one number: each a small function, with its formula, its bound, what it does not depend on.

Each takes a :class:`SpectrumView` and gives its value and a bound on the absolute error of that, from the bounds stated
for what it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spectrum_fast.errors import UsageError

if TYPE_CHECKING:
    from spectrum_fast.measure.scoring.records import ModuleScore
    from spectrum_fast.measure.spectra.record import Spectrum

Measured: TypeAlias = tuple[float, float]
"""A value and a bound on its absolute error."""
Quantity: TypeAlias = "Callable[[SpectrumView], float | Measured]"

PEFT_GUARD = 1e-8
"""What PEFT adds to the smallest singular value before it divides by it."""


class SpectrumView:
    """One matrix as a criterion sees it: every number of its line in the scan, by name; what is not there is an error.

    Attributes:
        values: all singular values, (n,) float64, descending, where spectra are stored.
        bounds: on the absolute error of each.
        name: of the module.
        n_min: short side of the matrix.
        n_max: long side.

    Raises:
        UsageError: on asking for what the scan does not hold; the message says what would store it.
    """

    def __init__(self, module: ModuleScore | Spectrum) -> None:
        self._module = module

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._module, key)
        if value is None and key == "singular_values":
            raise UsageError(
                f"{self.name}: expected all its singular values, found none in the scan; store them: "
                "spectrum-fast scan MODEL --out FILE --spectra"
            )
        if value is None:
            raise UsageError(f"{self.name}: expected its {key} in the scan, found none; scan again with this version")
        return value

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """See the class."""
        return self.singular_values.values

    @property
    def bounds(self) -> npt.NDArray[np.float64]:
        """See the class."""
        return self.singular_values.bounds

    @property
    def n_min(self) -> int:
        """See the class."""
        return min(self.shape[-2:])

    @property
    def n_max(self) -> int:
        """See the class."""
        return max(self.shape[-2:])

    @property
    def name(self) -> str:
        """See the class."""
        return getattr(self._module, "name", "matrix")


def spectral_norm(spectrum: SpectrumView) -> Measured:
    """Largest singular value, ``||W||_2 = s_max``.

    Invariant to rotations of rows and columns; grows with the scale of W. Bound: that of ``s_max``.
    """
    return spectrum.s_max, spectrum.errors.s_max


def stable_rank(spectrum: SpectrumView) -> Measured:
    """Stable rank, ``||W||_F^2 / ||W||_2^2``, in [1, n_min]: how many directions carry the energy.

    Invariant to rotations and to scale, and little changed by small singular values. Bound: ``s_max`` at both ends of
    its own, with ``||W||_F`` good to ``n_max eps``. Source: Rudelson & Vershynin 2007; WeightWatcher's ``stable_rank``.
    """
    s_max, error = spectrum.s_max, spectrum.errors.s_max
    if s_max == 0.0:
        return 0.0, 0.0
    value = (spectrum.frobenius_norm / s_max) ** 2
    sums = 4 * spectrum.n_max * np.finfo(np.float64).eps
    if error >= s_max:
        return value, math.inf
    return value, value * math.expm1(-2 * math.log1p(-error / s_max) + sums)


def mp_rank(spectrum: SpectrumView) -> Measured:
    """How many singular values lie above the Marchenko-Pastur edge of criterion ``mp``: the rank that is no noise.

    Invariant to rotations and to scale. Bound: the values so near the edge that their side is not known.
    """
    return spectrum.mp_rank, spectrum.errors.mp_rank or 0


def energy(spectrum: SpectrumView) -> Measured:
    """Share of ``||W||_F^2`` in the singular values above the Marchenko-Pastur edge, in [0, 1].

    Invariant to rotations and to scale. Needs all singular values. Bound: every value anywhere within its own, and
    those so near the edge that their side is not known on either.
    """
    squares = np.cumsum(spectrum.values**2)
    total = float(squares[-1])
    if total == 0.0:
        return 0.0, 0.0
    rank, doubt = spectrum.mp_rank, spectrum.errors.mp_rank or 0
    value, least, most = (
        float(squares[k - 1]) / total if k > 0 else 0.0 for k in (rank, rank - doubt, min(rank + doubt, len(squares)))
    )
    moved = float((2 * spectrum.values * spectrum.bounds + spectrum.bounds**2).sum()) / total
    shift = 2 * moved / (1 - moved) if moved < 1 else math.inf
    return value, max(value - least, most - value) + shift + 8 * len(squares) * np.finfo(np.float64).eps


def kappa(spectrum: SpectrumView) -> Measured:
    """Condition number as PEFT computes it, ``s_max / (s_min + 1e-8)``; a small one is well conditioned.

    Invariant to rotations, and to scale as long as ``s_min`` is far above 1e-8. Bound: both values at the ends of their
    own. Of a Gram matrix in float32 a small ``s_min`` is worth little (``scan --criterion kappa`` escalates until
    it is). Source: PEFT, ``KappaTuneSelector``; arXiv 2506.16289.
    """
    s_max, s_min, errors = spectrum.s_max, spectrum.s_min, spectrum.errors
    value = s_max / (s_min + PEFT_GUARD)
    least = max(s_max - errors.s_max, 0.0) / (s_min + errors.s_min + PEFT_GUARD)
    most = (s_max + errors.s_max) / (max(s_min - errors.s_min, 0.0) + PEFT_GUARD)
    return value, max(value - least, most - value)


def effective_rank(spectrum: SpectrumView) -> Measured:
    """Effective rank, ``exp(-sum_i p_i log p_i)`` with ``p_i = s_i / sum_j s_j``, in [1, n_min].

    Invariant to rotations and to scale. Needs all singular values. Bound: every value anywhere within its own. Source:
    Roy & Vetterli, EUSIPCO 2007.
    """
    total = float(spectrum.values.sum())
    if total == 0.0:
        return 0.0, 0.0
    shares, doubts = spectrum.values / total, spectrum.bounds / total
    # H = log S - T / S with S = sum p (1 as computed) and T = sum p log p.
    terms = _x_log_x(shares)
    ends = np.stack([_x_log_x(np.maximum(shares - doubts, 0.0)), _x_log_x(shares + doubts)])
    holds_least = np.abs(shares - math.exp(-1)) <= doubts  # where x log x is least
    lowest = np.where(holds_least, -math.exp(-1), ends.min(0))
    entropy, slack = -float(terms.sum()), float(doubts.sum())
    if slack >= 1:
        return math.exp(entropy), math.inf
    moved = float(np.maximum(terms - lowest, ends.max(0) - terms).sum())
    corners = [math.log(1 + s * slack) - (t * moved - entropy) / (1 + s * slack) for s in (-1, 1) for t in (-1, 1)]
    rounding = 8 * len(shares) * np.finfo(np.float64).eps
    value = math.exp(entropy)
    return value, max(abs(math.exp(corner) - value) for corner in corners) + rounding * value


def _x_log_x(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return x * np.log(np.where(x > 0, x, 1.0))
