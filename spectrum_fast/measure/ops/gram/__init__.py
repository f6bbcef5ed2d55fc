"""The symmetric Gram product of a weight matrix: the square of its singular values, at matrix-multiply speed."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module

WEIGHT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Element types of a weight that a Gram product is formed from."""

GRAM_DTYPES = (torch.float32, torch.float64)
"""Types that a Gram product is summed and stored in."""


def gram(weight: Tensor, *, out_dtype: torch.dtype = torch.float32, backend: str = "auto") -> Tensor:
    """Form the Gram matrix of the shorter side: ``W Wᵀ`` if m <= n, else ``Wᵀ W``.

    Its eigenvalues are the squares of the singular values of W. Products of two bfloat16 or two float16 numbers are
    exact in float32, so half-precision weights lose nothing against float32 ones.

    Args:
        weight: (m, n), m, n >= 1, float64, float32, float16 or bfloat16; any strides. Where the bfloat16 instructions
            serve (AVX512-BF16, AMX), entries and sums below the float32 normal range (1.2e-38) count as zero: scale
            weights to max|w| near 1.
        out_dtype: float32 or float64; a float64 weight needs float64. All products and sums are done in this type.
        backend: one of :data:`spectrum_fast.measure.ops.dispatch.BACKENDS`.

    Returns:
        (k, k) in ``out_dtype``, k = min(m, n), on the weight's device, contiguous, exactly symmetric with the native
        backend.

    Accuracy: ``|G - G_exact| <= c eps |W| |W|ᵀ`` entrywise with eps of ``out_dtype`` and c below about
    ``256 + K / 256`` in the worst case for sums over K terms (blocks of 256 or 512), a few units in practice.

    Raises:
        TypeError: a dtype that is not listed above, or a float64 weight with a float32 result.
        ValueError: not a matrix, or an empty one.
        UsageError, BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    _check("weight", weight, out_dtype)
    return backend_module("gram", weight.device.type, backend).gram(weight, out_dtype=out_dtype)


def add_gram(block: Tensor, out: Tensor, *, backend: str = "auto") -> None:
    """Add the products of the rows of a block to a Gram matrix: ``out += A Aᵀ``.

    So the Gram matrix of a weight that is never whole in memory is formed: with column blocks ``A = W_b`` of a wide
    weight the sum is ``W Wᵀ``, with transposed row blocks ``A = W_bᵀ`` of a tall one it is ``Wᵀ W``.

    Args:
        block: A, (k, K), K >= 1, float64, float32, float16 or bfloat16; any strides.
        out: (k, k), symmetric, float32 or float64 (float64 for a float64 block), contiguous, on the block's device;
            changed in place.
        backend: one of :data:`spectrum_fast.measure.ops.dispatch.BACKENDS`.

    Accuracy: that of :func:`gram`, plus one rounding of every entry of ``out`` a call.

    Raises:
        TypeError, ValueError, UsageError, BackendUnavailableError: as for :func:`gram`; ``out`` has another shape.
    """
    _check("block", block, out.dtype)
    size = block.shape[0]
    if out.shape != (size, size) or not out.is_contiguous():
        raise ValueError(f"out: expected a contiguous ({size}, {size}), found shape {tuple(out.shape)}")
    backend_module("gram", block.device.type, backend).add_gram(block, out)


def _check(name: str, weight: Tensor, out_dtype: torch.dtype) -> None:
    if weight.dtype not in WEIGHT_DTYPES:
        raise TypeError(f"{name}: expected one of {_names(WEIGHT_DTYPES)}, found {weight.dtype}")
    if out_dtype not in GRAM_DTYPES:
        raise TypeError(f"out_dtype: expected one of {_names(GRAM_DTYPES)}, found {out_dtype}")
    if weight.dtype == torch.float64 and out_dtype != torch.float64:
        raise TypeError(f"out_dtype: a float64 weight needs torch.float64, found {out_dtype}")
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"{name}: expected a matrix with at least one entry, found shape {tuple(weight.shape)}")


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype) for dtype in dtypes)
