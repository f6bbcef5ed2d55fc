"""Outliers foreseen from a sample of a weight, so that a Gram matrix that would be thrown away is not formed.

Whether a few singular values tower over the bulk is read off the Gram matrix in float32, and if they do, it is formed
all over again, not rounded to float32. A hundred columns of the long side tell most such matrices beforehand, at a
thousandth of the cost, and their leading directions are a start that one product with the Gram matrix improves. A
matrix whose outliers the sample misses (they may live in a few columns) is squared twice; nothing else depends on the
guess: the rounding that an error bound states is measured on the rotated Gram matrix, however its rotation was found.

For columns x_j of the long side N, ``||G||_F^2 = sum_jk (x_j . x_k)^2``. They are read b neighbours at a time, as they
lie in memory. Of c columns chosen so at random the pairs that are no neighbours count ``N (N - b) / (c (c - b))``
times, which is unbiased. Neighbours, and the squares of the lengths, count once: one long column that happens to be
chosen, or two that are alike, must not pass for thousands.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.spectra.rotation import ROTATION_RANK

SAMPLE = 128
"""Columns (or rows) of the long side. The estimate of a single outlier's share is good to a quarter."""
_NEIGHBOURS = 8
"""Columns that are read together: 128 single ones of 4096 x 14336 take 9 ms, a tenth that way."""
_SEED = 20406


@lru_cache(maxsize=32)
def _choose(length: int, count: int) -> list[int]:
    """Where ``count`` groups of neighbours begin."""
    groups = torch.randperm(length // _NEIGHBOURS, generator=torch.Generator().manual_seed(_SEED))[:count]
    return (_NEIGHBOURS * groups.sort().values).tolist()


def foresee_outliers(weight: Tensor, sum_of_squares: float, spikiness: float) -> Tensor | None:
    """Directions of a weight's outliers, if a sample shows that its Gram matrix is spiky.

    Args:
        weight: (m, n), finite, on the CPU.
        sum_of_squares: ``||W||_F^2``.
        spikiness: ``k ||G||_F^2 / trace^2`` above which it counts as spiky, k the short side.

    Returns:
        (k, 32) float64, which span the leading directions of the sample; None where it shows no outliers.
    """
    size, length = min(weight.shape), max(weight.shape)
    groups = min(SAMPLE, length // 2, size) // _NEIGHBOURS
    count = groups * _NEIGHBOURS
    if count < ROTATION_RANK:
        return None
    along = 0 if weight.shape[0] > weight.shape[1] else 1
    sample = torch.cat([weight.narrow(along, begin, _NEIGHBOURS) for begin in _choose(length, groups)], along)
    sample = sample.T if along else sample
    products = gram(sample[None], out_dtype=torch.promote_types(weight.dtype, torch.float32))[0].to(torch.float64)
    squares = products.square()
    neighbours = float(squares.view(groups, _NEIGHBOURS, groups, _NEIGHBOURS).diagonal(dim1=0, dim2=2).sum())
    pairs = float(squares.sum()) - neighbours
    norm_squared = pairs * (length * (length - _NEIGHBOURS) / (count * (count - _NEIGHBOURS))) + neighbours
    if not size * norm_squared > spikiness * sum_of_squares**2:
        return None
    return sample.T.to(torch.float64) @ torch.linalg.eigh(products).eigenvectors[:, -ROTATION_RANK:]
