"""Spearman's rank correlation with average ranks for ties."""

from __future__ import annotations

import math
from collections.abc import Sequence


def average_ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value from 1 (smallest); equal values share the mean of their ranks. ``inf`` is the largest.

    Raises:
        ValueError: a value is NaN, which has no rank.
    """
    if any(math.isnan(value) for value in values):
        raise ValueError("NaN has no rank")
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            ranks[order[place]] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson correlation of the average ranks of ``a`` and ``b``, in [-1, 1].

    Returns:
        None where it is undefined: fewer than two pairs, or all values of one side equal.

    Raises:
        ValueError: the lengths differ, or a value is NaN.
    """
    if len(a) != len(b):
        raise ValueError(f"expected two sequences of one length, found {len(a)} and {len(b)}")
    if len(a) < 2:
        return None
    mean = (len(a) + 1) / 2
    x = [rank - mean for rank in average_ranks(a)]
    y = [rank - mean for rank in average_ranks(b)]
    xx, yy = math.fsum(v * v for v in x), math.fsum(v * v for v in y)
    if xx == 0 or yy == 0:
        return None
    # Ranks are halves, so the sums are exact and no rounding takes the quotient out of [-1, 1].
    return math.fsum(v * w for v, w in zip(x, y, strict=True)) / math.sqrt(xx * yy)
