"""Sums of what singular values exceed a point by, of each matrix of a batch, by a contour: a vertical line.

``A(t) = sum_i max(s_i - t, 0)`` is the integral of ``n - N(x)`` from t on, N the counting function. N is a staircase,
but it is the boundary value of an analytic function: with ``L(z) = sum_i log(s_i^2 - z)``, the log-determinant,
``N(x) = -Im L(x^2 + i0) / pi``. A reference spectrum r with as many values and the same sum of squares makes the
difference of the two vanish like ``w^-4``, so that the way from t along the real axis may be turned upwards, away from
every value:

    A(t) = sum_i max(r_i - t, 0) + 1 / pi * integral_0^inf D(y) dy,    D(y) = Re (L - L_ref)((t + i y)^2).

In ``u = log y`` all singularities lie on the lines ``Im u = +-pi/2``, and the trapezoidal rule converges like
``exp(-pi^2 / step)`` whatever the spectrum (clusters, gaps, a value at t itself). Some twenty complex shifts replace
one shift for each value above t; for ``t = 0``, the sum of all values, they are real. What lies before the first node,
where D is flat, and beyond the last, where it falls like ``y^-4``, is known in closed form.

Every line has an accuracy of its own. All are given as many places of nodes, and those that one does not need are
passed over; one launch serves all lines of a batch.

Source: Trefethen & Weideman 2014 (trapezoidal rule).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from spectrum_fast.measure.spectra.arrays import Array, complex_of, functions_of, pick, steps
from spectrum_fast.measure.spectra.counts import CountTable, Slices

SHARE = 0.03
"""Of the tolerance of a score, what the integrals of one of its sums may be wrong by."""
PLACES = 96
"""Nodes of a line at most; where more were wanted, they lie farther apart and the stated error is larger. A multiple of
16, the most that a vector loop of torch takes at a time: what a loop is left with it rounds otherwise, and no matrix
may come out otherwise beside others."""
_FINEST, _COARSEST = 32.0, 8.25
"""``pi^2 / step``: between these the constants below hold."""
_NEAR, _FAR = 1.0, 0.34
"""What lies before the first node, at y, is wrong by no more than y for a value at a distance d, and 0.34 y^3 / d^2."""
_OWN, _OF_LINE = 0.04, 0.6
"""And beyond the last one for a value s: ``s^4 (0.04 s^2 + 0.6 t^2) / y^5``. These four are suprema over distances and
values, by sums of the terms (tests/measure/spectra/test_contour.py)."""
_WITHIN = 32.0
"""Values at distances up to this many times the least first node count as near."""
_ROUNDING = 4 * sys.float_info.epsilon
"""Of a logarithm of a determinant, for each of its n terms and in units of their size."""


@dataclass(frozen=True)
class Lines:
    """Lines ``Re w = t`` and the nodes on each, ``y = first e^(k step)`` for k from 0 to ``last``; (m, i).

    Attributes:
        points: of which the excess is wanted, at least 0.
        at: t, the same, or 0 where no value lies below, as shifts are real there and the excess is another by a
            constant. Negative computed eigenvalues (rounding) must be smaller than ``t^2 / 16``.
        asked: bool; elsewhere the excess is zero, or nobody's business.
        first: y of the first node.
        step: of log y.
        last: k of the last node, float64.
        error: bound on the error of each excess.
        size: number of values of each matrix.
        values: (m, r) of the reference spectrum.
        counts: (m, r) how often it holds them.
    """

    points: Array
    at: Array
    asked: Array
    first: Array
    step: Array
    last: Array
    error: Array
    size: int
    values: Array
    counts: Array

    @classmethod
    def of(cls, table: CountTable, trace: Array, points: Array, wanted: Array) -> Lines:
        """Lines at points of the table.

        Args:
            table: counts; none of the values lies above its last point.
            trace: (m,) sum of squares of the values.
            points: (m, i) ascending.
            wanted: (m, i) how exact each excess has to be, absolute; infinite where none is asked for.
        """
        xp, n_below, size = functions_of(points), table.below(points), table.size
        values, counts = table.two_values(points[:, -1], trace)
        asked = (n_below < size) & (wanted < math.inf)
        at = xp.where(n_below > 0, points, 0.0)
        lower, upper, inside = table.cells(values, counts)
        t, top = at[..., None], table.points[:, -1:]
        share = xp.maximum(xp.where(asked, wanted / 3, top), sys.float_info.epsilon * top)

        # What the rule itself is wrong by: for each value max(s, t) times 2 step / pi exp(-pi^2 / step).
        scale = (inside * xp.maximum(upper, t)).sum(-1)
        digits = xp.log((2 * math.pi * scale / share).clip(math.e))
        digits = (digits - xp.log(digits)).clip(_COARSEST, _FINEST)

        first, near, far = _first_node(t, share, (lower, upper, inside), size)
        first = xp.minimum(xp.maximum(first, sys.float_info.epsilon * top), top)
        relative, ratio = upper / top[..., None], at / top
        fourth = (relative * relative) * (relative * relative) * inside
        beyond = _OWN * (fourth * (relative * relative)).sum(-1) + _OF_LINE * fourth.sum(-1) * (ratio * ratio)
        end = top * (beyond * top / (math.pi * share)).clip(1.0) ** 0.2

        reach = xp.log(end / first)
        step = xp.maximum(math.pi**2 / digits, reach / (PLACES - 1))
        last = xp.ceil(reach / step).clip(1.0)
        last = xp.where(last < PLACES - 1, last, PLACES - 1.0)  # what is no number, too
        end = first * xp.exp(last * step)
        error = 2 * step * xp.exp(-(math.pi**2) / step) * scale
        error = error + (_NEAR * near + _FAR * far * first * first) * first
        error = error + beyond * (top / end) ** 5 * top
        error = error + _ROUNDING * size * (1 + abs(xp.log(end))) * end
        error = xp.where(asked, error / math.pi, 0.0)
        return cls(points, at, asked, first, step, last, error, size, values, counts)


def _first_node(t: Array, share: Array, cells: tuple[Array, Array, Array], size: int) -> tuple[Array, Array, Array]:
    """As high as what is left out below it allows: if all values were near to the line, or higher if they are not.

    Args:
        t: (m, i, 1) the lines.
        share: (m, i) what may be left out.
        cells: lower and upper edges and numbers of values, (m, 1, c), at most ``2 size`` in all.
        size: number of values.

    Returns:
        (m, i) each: y of the node; values near to the line or its mirror image; and sums of ``1 / d^2`` of the others.
    """
    xp, (lower, upper, inside) = functions_of(t), cells
    least = math.pi * share / (4 * size * _NEAR)
    near, far = 0.0, 0.0
    for distance in (xp.maximum(lower - t, t - upper).clip(0.0), lower + t):
        is_near = distance < _WITHIN * least[..., None]
        inverse = 1 / xp.where(is_near, math.inf, distance)
        near = near + xp.where(is_near, inside, 0.0).sum(-1)
        far = far + (inside * (inverse * inverse)).sum(-1)
    half = 0.5 * math.pi * share
    first = xp.minimum(half / (_NEAR * near), (half / (_FAR * far)) ** (1 / 3))  # one may be infinite
    return xp.maximum(first, least), near, far


def excess(slices: Slices, lines: Lines) -> Array:
    """``sum_i max(s_i - t, 0)`` for points t of each matrix (m, i), all in one evaluation; 0 where none is asked."""
    xp, t, step = functions_of(lines.at), lines.at[..., None], lines.step[..., None]
    place = steps(PLACES, t) - 1
    wanted = lines.asked[..., None] & (place <= lines.last[..., None])
    y = lines.first[..., None] * xp.exp(xp.minimum(place, lines.last[..., None]) * step)
    real, imag = (t - y) * (t + y), 2 * t * y
    shape = wanted.shape
    shifts = complex_of(real, imag).reshape(shape[0], -1)
    difference = slices.log_abs_det(shifts, wanted.reshape(shape[0], -1)).reshape(shape)
    over = 0.0
    for column in range(lines.values.shape[1]):
        value, count = lines.values[:, column, None], lines.counts[:, column, None]
        apart = (value * value)[..., None] - real
        difference = difference - (0.5 * count)[..., None] * xp.log(apart * apart + imag * imag)
        over = over + count * (value - lines.at).clip(0.0)
    terms = xp.where(wanted, y * difference, 0.0)
    q = xp.exp(-lines.step)
    last = pick(terms, xp.asarray(lines.last, dtype=xp.int64)[..., None])[..., 0]
    tails = terms[..., 0] * q / (1 - q) + last * q**3 / (1 - q**3)
    found = over + lines.step / math.pi * (terms.sum(-1) + tails) - lines.size * (lines.points - lines.at)
    return xp.where(lines.asked, found, 0.0)
