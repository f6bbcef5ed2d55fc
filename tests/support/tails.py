"""Forty matrices with tails from light to heavy, for what is fitted to tails; the same numbers everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_SHAPES = ((64, 64), (60, 200), (150, 100), (128, 512), (15, 40))


def matrices() -> Iterator[npt.NDArray[np.float32]]:
    """Student's t with 1.5 to 30 degrees of freedom, some of them with a few strong directions added."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows, cols = _SHAPES[seed % len(_SHAPES)]
        weight = rng.standard_t((1.5, 2.0, 3.0, 5.0, 8.0, 30.0)[seed % 6], (rows, cols)) / np.sqrt(cols)
        if seed % 4 == 0:
            weight += np.outer(rng.standard_normal(rows), rng.standard_normal(cols)) / np.sqrt(rows)
        yield weight.astype(np.float32)
