"""How often the host is asked while spectra are sliced: a value, not a second engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

LINEAR_POINTS, GEOMETRIC_POINTS, LOW_POINTS = 20, 11, 8
"""First grid: evenly over the bulk (at least), by ratio to the top, by ratio down to the rounding floor."""
SMALL_ENTRIES = 1 << 22
"""Of a matrix that a CPU takes together with others: between two kernels a few hundred calls cost 1 us and more each,
and hardly more for sixteen matrices."""
MOST_TOGETHER, GRAM_BYTES = 16, 20 << 20
"""Of those at most: twelve experts of 512 x 1024 take 4 % less of a scan's time than eight, sixteen 5 %. Fewer where
their Gram matrices would not lie in the last cache."""
_LEAST_INTERIOR, _MOST_INTERIOR = 2, 255
_NARROWING = 115.0
"""How much narrower brackets get than the bulk, in units of 1 / eps: a tenth of the least that rounding is said to do
to a value; half of that is what they add to its bound."""


@dataclass(frozen=True)
class Schedule:
    """When slicing stops, and how many shifts go together.

    Attributes:
        waits: look at what was found after every round, stop where brackets are narrow, and take large matrices one at
            a time; else all of a batch goes through a number of rounds known beforehand, and the device is not waited
            for.
        programs: shifts that cost no more than one of them.
    """

    waits: bool
    programs: int

    def takes_together(self, shape: tuple[int, int]) -> bool:
        """Whether matrices of this shape go side by side."""
        return not self.waits or math.prod(shape) <= SMALL_ENTRIES

    def parts(self, matrices: int, shape: tuple[int, int]) -> list[list[int]]:
        """Which matrices of a batch are taken together."""
        step = 1 if self.waits else matrices
        if self.waits and self.takes_together(shape):
            step = max(1, min(MOST_TOGETHER, GRAM_BYTES // (4 * min(shape) ** 2)))
        return [list(range(begin, min(begin + step, matrices))) for begin in range(0, matrices, step)]

    def linear_points(self, matrices: int) -> int:
        """Points over the bulk of each: what runs beside each other anyway, and for many matrices the least."""
        return max(LINEAR_POINTS, self.programs // matrices - GEOMETRIC_POINTS - LOW_POINTS)

    def interior_points(self, brackets: int) -> int:
        """Points that split each of so many brackets in a round."""
        return min(max(self.programs // brackets, _LEAST_INTERIOR), _MOST_INTERIOR)

    def rounds(self, matrices: int, interior: int, eps: float) -> int:
        """Rounds of multisection for spectra rounded to ``eps``."""
        narrowing = _NARROWING / eps / self.linear_points(matrices)
        return math.ceil(math.log(narrowing) / math.log(interior + 1))


ADAPTIVE = Schedule(waits=True, programs=0)
"""For a CPU, where a question costs nothing and every shift does: a sixth of the shifts of a fixed schedule."""
FIXED = Schedule(waits=False, programs=1056)
"""For a GPU: 1056 shifts run beside each other on an H100 or H200, two warps for each scheduler of its 132
multiprocessors, of which one works (224 cycles a step) while the other waits (455). Fewer cost as much; more make a
round longer, and its points are worth only their logarithm."""
