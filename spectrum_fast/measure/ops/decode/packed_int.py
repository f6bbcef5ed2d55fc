"""Integers packed into 32-bit words: compressed-tensors ``pack-quantized`` (4 and 8 bits) and AWQ (4 bits)."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.dispatch import use_native

_WORD_BITS = 32
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def decode_pack_quantized(
    codes: Tensor,
    scale: Tensor,
    shape: Tensor,
    zero_point: Tensor | None = None,
    group_index: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """``W[i, j] = (q[i, j] - zero_point[i, g]) * scale[i, g]``, g the group of column j.

    A word holds ``32 / bits`` values of a row, lowest bits first, each plus ``2^(bits - 1)``. Zero points are packed in
    the same way along the rows.

    Args:
        codes: int32 [rows, ceil(columns * bits / 32)], bits 4 or 8.
        scale: float; one number, [rows, 1] or [rows, groups].
        shape: integers (rows, columns).
        zero_point: int32 [ceil(rows * bits / 32), groups], or None for symmetric codes.
        group_index: group of each column, or None where groups are runs of equal length.
        backend: one of :data:`spectrum_fast.measure.ops.dispatch.BACKENDS`; ``native`` and ``reference`` are equal to
        the bit.

    Returns:
        [rows, columns] float32; relative error 2^-24.

    Raises:
        UnsupportedDtypeError: the shapes do not fit, or do not tell 4 from 8 bits.

    Source: compressed-tensors, ``compressors/pack_quantized``.
    """
    rows, columns = (int(extent) for extent in shape.reshape(-1).tolist())
    fitting = [
        bits for bits in (4, 8) if min(rows, columns) > 0 and codes.shape == (rows, -(-columns * bits // _WORD_BITS))
    ]
    if len(fitting) != 1:
        raise UnsupportedDtypeError(
            f"expected words of 4 or 8 bit codes for shape ({rows}, {columns}), found {tuple(codes.shape)}"
        )
    bits = fitting[0]
    scale = scale.to(torch.float32)
    scale = scale.reshape(1, 1) if scale.numel() == 1 else scale
    if scale.ndim != 2 or scale.shape[0] not in (1, rows) or scale.shape[1] == 0:
        raise UnsupportedDtypeError(f"expected scales [{rows}, groups], found {tuple(scale.shape)}")
    groups = scale.shape[1]
    points = None
    if zero_point is not None:
        if zero_point.shape != (-(-rows * bits // _WORD_BITS), groups):
            raise UnsupportedDtypeError(f"zero points {tuple(zero_point.shape)} do not fit scales {tuple(scale.shape)}")
        points = _unpack(zero_point.T.contiguous(), bits, rows).T
    if group_index is not None and not bool((group_index == -1).all()):
        index = group_index.reshape(-1).to(torch.int64)
        if index.numel() != columns or int(index.min()) < 0 or int(index.max()) >= groups:
            raise UnsupportedDtypeError(f"group index: expected {columns} groups below {groups}")
        weight = _unpack(codes, bits, columns)
        if points is not None:
            weight -= points[:, index]
        return weight.mul_(scale[:, index])
    if columns % groups:
        raise UnsupportedDtypeError(f"{groups} groups do not divide {columns} columns")
    if (bits == 8 or columns // groups % 2 == 0) and use_native(codes, backend):
        from spectrum_fast.measure.ops.decode import native

        return native.grouped(codes, bits, columns, scale, points)
    weight = _unpack(codes, bits, columns)
    view = weight.view(rows, groups, columns // groups)
    if points is not None:
        view -= points[..., None]
    view *= scale[..., None]
    return weight


def decode_awq(codes: Tensor, scales: Tensor, qzeros: Tensor) -> Tensor:
    """``W[j, i] = (q[i, j] - qzeros[i // g, j]) * scales[i // g, j]``, g = in_features / groups.

    A word holds eight columns, column ``k`` at nibble ``(0, 4, 1, 5, 2, 6, 3, 7)[k]``.

    Args:
        codes: int32 [in_features, out_features / 8].
        scales: float [groups, out_features].
        qzeros: int32 [groups, out_features / 8].

    Returns:
        [out_features, in_features] float32; relative error 2^-24.

    Raises:
        UnsupportedDtypeError: the shapes do not fit.

    Source: AutoAWQ, version ``gemm``, as read by compressed-tensors (``entrypoints/convert/converters/autoawq.py``).
    """
    rows, words = codes.shape
    groups = scales.shape[0]
    if rows % groups or scales.shape[1] != 8 * words or qzeros.shape != (groups, words):
        raise UnsupportedDtypeError(
            f"scales {tuple(scales.shape)} and qzeros {tuple(qzeros.shape)} do not fit codes {tuple(codes.shape)}"
        )
    order = torch.tensor(_AWQ_ORDER, device=codes.device)
    weight, points = (_nibbles(part).view(-1, words, 8)[..., order].reshape(-1, 8 * words) for part in (codes, qzeros))
    view = weight.view(groups, rows // groups, 8 * words)
    view -= points[:, None]
    view *= scales.to(torch.float32)[:, None]
    return weight.T.contiguous()


def _unpack(words: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` values of each row of words as float32, the offset taken off."""
    return unpack_words(words, bits)[:, :count].sub(1 << (bits - 1))


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """int32 [n, m] -> float32 [n, 32 / bits * m], lowest bits first; bits 4 or 8."""
    return _nibbles(words) if bits == 4 else _bytes(words).to(torch.float32)


def _nibbles(words: Tensor) -> Tensor:
    """int32 [n, m] -> float32 [n, 8 m], lowest bits first."""
    codes = _bytes(words)
    return torch.stack((codes & 15, codes >> 4), dim=-1).view(words.shape[0], -1).to(torch.float32)


def _bytes(words: Tensor) -> Tensor:
    """int32 [n, m] -> uint8 [n, 4 m], lowest bits first."""
    codes = words.contiguous().view(torch.uint8)
    if sys.byteorder == "big":
        codes = codes.view(*words.shape, 4).flip(-1).reshape(codes.shape)
    return codes
