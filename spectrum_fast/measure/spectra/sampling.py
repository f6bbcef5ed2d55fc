"""Outliers foreseen from a sample of a weight, so that a Gram matrix that would be thrown away is not formed.

Whether a few singular values tower over the bulk is read off the Gram matrix in float32, and if they do, it is formed
all over again, not rounded to float32. A hundred columns of the long side tell most such matrices beforehand, at a
thousandth of the cost, and their leading directions are a start that one product with the Gram matrix improves. A
matrix whose outliers the sample misses (they may live in a few columns) is squared twice; nothing else depends on the
guess: the rounding that an error bound states is measured on the rotated Gram matrix, however its rotation was found.

For columns x_j of the long side N, ``||G||_F^2 = sum_jk (x_j . x_k)^2``. Of c of them chosen at random the pairs count
``N (N - 1) / (c (c - 1))`` times, which is unbiased. The squares of the lengths count once: one long column that
happens to be chosen must not pass for thousands.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.spectra.rotation import ROTATION_RANK

SAMPLE = 128
"""Columns (or rows) of the long side. The estimate of a single outlier's share is good to a quarter."""
_SEED = 20406


@lru_cache(maxsize=32)
def _choose(length: int, count: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(_SEED))[:count].sort().values


def foresee_outliers(weight: Tensor, sum_of_squares: float, spikiness: float) -> Tensor | None:
    """Directions of a weight's outliers, if a sample shows that its Gram matrix is spiky.

    Args:
        weight: (m, n), finite, on the CPU.
        sum_of_squares: ``||W||_F^2``.
        spikiness: ``k ||G||_F^2 / trace^2`` above which it counts as spiky, k the short side.

    Returns:
        (k, 32) float32, orthonormal columns, the leading ones of the sample; None where the sample shows no outliers.
    """
    size, length = min(weight.shape), max(weight.shape)
    count = min(SAMPLE, length // 2, size)
    if count < ROTATION_RANK:
        return None
    along = 0 if weight.shape[0] > weight.shape[1] else 1
    sample = weight.index_select(along, _choose(length, count))
    sample = sample.T if along else sample
    products = gram(sample[None], out_dtype=torch.promote_types(weight.dtype, torch.float32))[0].to(torch.float64)
    lengths = float(products.diagonal().square().sum())
    pairs = float(products.square().sum()) - lengths
    norm_squared = pairs * (length * (length - 1) / (count * (count - 1))) + lengths
    if not size * norm_squared > spikiness * sum_of_squares**2:
        return None
    directions = torch.linalg.eigh(products).eigenvectors[:, -ROTATION_RANK:]
    return torch.linalg.qr(sample.T.to(torch.float64) @ directions).Q.to(torch.float32)
