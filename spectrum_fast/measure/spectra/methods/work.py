"""What the methods share: the matrices of a batch, what is wanted of them, and what has been found so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.spectra.arrays import Array, to_device
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.matrices import Matrices
from spectrum_fast.measure.spectra.options import METHODS, PRECISIONS
from spectrum_fast.measure.spectra.record import Criterion
from spectrum_fast.measure.spectra.rotation import OutlierBasis
from spectrum_fast.measure.spectra.schedule import Schedule


@dataclass(frozen=True)
class Request:
    """What is wanted of every matrix; see :func:`spectrum_fast.measure.spectra.engine.compute_spectra`."""

    criterion: Criterion
    method: str
    precision: str
    tolerance: float
    all_values: bool

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance must lie in (0, 1), found {self.tolerance!r}")


@dataclass(frozen=True)
class Attempt:
    """One method's answer: functionals, the bound on the score's relative error, and how it was got."""

    functionals: Functionals
    score_error: float
    method: str
    reason: str


Attempts: TypeAlias = dict[int, Attempt | Exception]
"""By the place of a matrix in the batch."""


@dataclass(frozen=True)
class Outliers:
    """Matrices whose outliers are to be rotated away.

    Attributes:
        indices: their places in the batch.
        basis: of their directions.
        spikiness: of each.
    """

    indices: list[int]
    basis: OutlierBasis
    spikiness: list[float]

    def among(self, indices: Sequence[int]) -> Outliers:
        """Those at some places of the batch."""
        kept = [place for place, index in enumerate(self.indices) if index in indices]
        return Outliers([self.indices[p] for p in kept], self.basis.take(kept), [self.spikiness[p] for p in kept])


@dataclass
class Work:
    """A batch on its way down the ladder.

    Attributes:
        matrices: finite, none all zero, scaled where their scale called for it.
        sums_of_squares: ``||W||_F^2`` of each, in float64.
        request: what is wanted of each.
        schedule: how often the host is asked.
        reason: why the first method is tried, if that was not the ladder's own choice.
        best: the best attempt at each matrix so far.
        outliers: found on the way, of matrices that go together.
        uneven: places of matrices that have none, but values of uneven size.
    """

    matrices: Matrices
    sums_of_squares: Sequence[float]
    request: Request
    schedule: Schedule
    reason: str
    best: Attempts = field(default_factory=dict)
    outliers: list[Outliers] = field(default_factory=list)
    uneven: set[int] = field(default_factory=set)

    def traces(self, indices: Sequence[int]) -> Array:
        """Traces of the Gram matrices of some, (m,) float64 where they are: what is made of them takes their form."""
        sums, device = [self.sums_of_squares[index] for index in indices], self.matrices.device
        looked_at = self.schedule.waits and device.type == "cpu"
        return np.array(sums) if looked_at else to_device(sums, torch.float64, device)

    def unsolved(self) -> list[int]:
        """Places of the matrices whose last attempt misses the tolerance; one that raised will not be tried again."""
        return [index for index in range(len(self.matrices)) if self._is_open(self.best.get(index))]

    def keep(self, attempts: Attempts) -> None:
        """Take the attempts of a method, but for those that are worse than what there is."""
        for index, attempt in attempts.items():
            last = self.best.get(index)
            if isinstance(last, Attempt) and isinstance(attempt, Attempt) and attempt.score_error > last.score_error:
                continue
            self.best[index] = attempt

    def attempt(self, found: Functionals, method: str, reason: str) -> Attempt:
        """The answer of a method, with the bound that its functionals imply for the score."""
        bound = self.request.criterion.score_error(found.statistics, found.errors, found.score_error())
        return Attempt(found, bound if found.consistent else math.inf, method, reason)

    def why(self, index: int) -> str:
        """Why the next method is tried on a matrix: what its last attempt lacked."""
        last = self.best.get(index)
        if not isinstance(last, Attempt):
            return self.reason
        what = "float64 band" if last.method == "band-float64" else "float32"
        if not last.functionals.consistent:
            return f"{what}: trace or norm changed in the reduction, a kernel is at fault"
        return f"{what} bound {last.score_error:.1e} over {self.request.tolerance:.0e}"

    def _is_open(self, last: Attempt | Exception | None) -> bool:
        return last is None or (isinstance(last, Attempt) and not last.score_error <= self.request.tolerance)
