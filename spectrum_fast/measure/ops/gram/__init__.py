"""The symmetric Gram product of a weight matrix: the square of its singular values, at matrix-multiply speed."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module, check_weights


def gram(weights: Tensor, *, out_dtype: torch.dtype = torch.float32, unrounded: bool = False) -> Tensor:
    """Form the Gram matrix of the shorter side of each weight: ``W Wᵀ`` if r <= c, else ``Wᵀ W``.

    Its eigenvalues are the squares of the singular values of W. Products of two bfloat16 or two float16 numbers are
    exact in float32, so half-precision weights lose nothing against float32 ones.

    Args:
        weights: (m, r, c), r, c >= 1, float64, float32, float16 or bfloat16; any strides. Where the bfloat16
            instructions serve (AVX512-BF16, AMX), entries and sums below the float32 normal range (1.2e-38) count as
            zero: scale weights to max|w| near 1.
        out_dtype: float32 or float64; a float64 weight needs float64. All products and sums are done in this type.
        unrounded: a float64 result need be no better than a float32 one before it is rounded to that: what costs no
            more, for a use that cannot bear the rounding.

    Returns:
        (m, k, k) in ``out_dtype``, k = min(r, c), on the weights' device, contiguous, exactly symmetric but with the
        reference.

    Accuracy: ``|G - G_exact| <= c eps |W| |W|ᵀ`` entrywise with eps of ``out_dtype`` and c below about
        ``256 + K / 256`` in the worst case for sums over K terms (blocks of 256 or 512), a few units in practice. The
        compiled kernels sum 64 terms in float32, eight of these sums likewise, and those in float64: of bfloat16
        weights ``||G - G_exact||_F`` is 6e-8 ``||G||_F``.

    Raises:
        TypeError: a dtype that is not listed above, or a float64 weight with a float32 result.
        ValueError: not a batch of matrices, or empty ones.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    _check("weights", weights, out_dtype)
    backend = backend_module("gram", weights.device.type)
    return backend.gram(weights.detach(), out_dtype=out_dtype, unrounded=unrounded)


def add_gram(blocks: Tensor, out: Tensor, *, unrounded: bool = False) -> None:
    """Add the products of the rows of each block to a Gram matrix: ``out += A Aᵀ``.

    So the Gram matrix of a weight that is never whole in memory is formed: with column blocks ``A = W_b`` of a wide
    weight the sum is ``W Wᵀ``, with transposed row blocks ``A = W_bᵀ`` of a tall one it is ``Wᵀ W``.

    Args:
        blocks: A, (m, k, K), K >= 1, float64, float32, float16 or bfloat16; any strides.
        out: (m, k, k), symmetric, float32 or float64 (float64 for float64 blocks), contiguous, on the blocks' device;
            changed in place.
        unrounded: as for :func:`gram`.

    Accuracy: that of :func:`gram`, plus one rounding of every entry of ``out`` a call.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as for :func:`gram`; ``out`` has another shape.
    """
    _check("blocks", blocks, out.dtype)
    count, size, _ = blocks.shape
    if out.shape != (count, size, size) or not out.is_contiguous():
        raise ValueError(f"out: expected a contiguous ({count}, {size}, {size}), found shape {tuple(out.shape)}")
    backend_module("gram", blocks.device.type).add_gram(blocks.detach(), out, unrounded=unrounded)


def update_gram(grams: Tensor, v: Tensor, z: Tensor) -> Tensor:
    """``G + V Zᵀ + Z Vᵀ`` of each Gram matrix, in float64 until it is rounded to float32; DESTROYS ``grams``.

    Args:
        grams: (m, k, k) float64, symmetric, contiguous.
        v: (m, k, r) float64.
        z: (m, k, r) float64.

    Returns:
        (m, k, k) float32, each matrix contiguous, exactly symmetric but with the reference. With the compiled kernels
        it lies in the memory of ``grams``.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    if not grams.dtype == v.dtype == z.dtype == torch.float64:
        raise TypeError(f"expected torch.float64, found {grams.dtype}, {v.dtype} and {z.dtype}")
    square = grams.ndim == 3 and grams.shape[1] == grams.shape[2] and grams.is_contiguous()
    if not square or v.ndim != 3 or v.shape[:2] != grams.shape[:2] or z.shape != v.shape:
        raise ValueError(
            f"expected contiguous grams (m, k, k) and v, z (m, k, r), found {tuple(grams.shape)}, {tuple(v.shape)} and "
            f"{tuple(z.shape)}"
        )
    return backend_module("gram", grams.device.type).update_gram(grams, v, z)


def _check(name: str, weights: Tensor, out_dtype: torch.dtype) -> None:
    check_weights(weights, name)
    least = torch.float64 if weights.dtype == torch.float64 else torch.float32
    if out_dtype not in (torch.float64, least):
        raise TypeError(f"out_dtype: a {weights.dtype} weight needs {least} or torch.float64, found {out_dtype}")
