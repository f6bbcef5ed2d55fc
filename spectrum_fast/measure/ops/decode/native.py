"""Decoding in C++ (kernels/decode*.cpp), equal to the bit to the torch forms; operands have been checked by these."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from spectrum_fast import _native


def scaled(codes: Tensor, scale: Tensor, block: tuple[int, ...], zero_point: Tensor | None) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.decode.scaled.decode_scaled`; scales and zero points in float32."""
    rows, columns = codes.shape
    out = torch.empty(rows, columns, dtype=torch.float32)
    _native.decode_scaled(
        _bytes(codes),
        rows,
        columns,
        _byte_table(codes.dtype),
        _flat(scale),
        None if zero_point is None else _flat(zero_point),
        block[0],
        block[1],
        out.view(-1),
    )
    return out


def scaled_nibbles(codes: Tensor, table: Tensor, maxima: Tensor, width: int, size: int) -> Tensor:
    """``out[i] = table[nibble i] * maxima[i // width]``, high nibble first; flat, float32; ``width`` even."""
    out = torch.empty(size, dtype=torch.float32)
    _native.decode_nibbles(
        _bytes(codes), maxima.numel(), 1, width, width // 2, _flat(table), _flat(maxima), None, False, out
    )
    return out


def grouped(words: Tensor, bits: int, columns: int, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """Packed integers with a scale for each group of columns; float32 [rows, columns].

    Args:
        words: int32 [rows, words].
        bits: 4 or 8; the values are offset by half their range.
        columns: values of a row.
        scale: [rows or 1, groups] float32; with 4 bits the groups are of an even length.
        zero_point: [rows, groups] float32, or None.
    """
    rows, groups = words.shape[0], scale.shape[1]
    width = columns // groups
    if zero_point is not None:
        scale = scale.expand(rows, groups)
    out = torch.empty(rows, columns, dtype=torch.float32)
    codes = words.contiguous().view(torch.uint8)
    points = None if zero_point is None else _flat(zero_point)
    if bits == 4:
        table = torch.arange(16, dtype=torch.float32) - 8
        _native.decode_nibbles(
            codes.view(-1), rows, groups, width, codes.shape[1], table, _flat(scale), points, True, out.view(-1)
        )
        return out
    _native.decode_scaled(
        _flat(codes[:, :columns], torch.uint8),
        rows,
        columns,
        torch.arange(256, dtype=torch.float32) - 128,
        _flat(scale.expand(rows, groups)),
        points,
        1,
        width,
        out.view(-1),
    )
    return out


def groups_of_32(blocks: Tensor, scale: Tensor, table: Tensor, scale_values: Tensor) -> Tensor:
    """MXFP4: blocks [rows, groups, 16] -> bfloat16 [rows, 32 * groups].

    Args:
        blocks: uint8.
        scale: uint8 [rows, groups].
        table: 16 values in bfloat16.
        scale_values: what each of the 256 scale bytes stands for, bfloat16.
    """
    rows, groups, _ = blocks.shape
    out = torch.empty(rows, 32 * groups, dtype=torch.bfloat16)
    tables = (table[None, :] * scale_values[:, None]).contiguous()
    _native.decode_groups(_bytes(blocks), _flat(scale, torch.uint8), tables.view(-1), out.view(-1))
    return out


def _flat(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return values.to(dtype).contiguous().view(-1)


def _bytes(codes: Tensor) -> Tensor:
    return codes.contiguous().view(torch.uint8).view(-1)


@cache
def _byte_table(dtype: torch.dtype) -> Tensor:
    """What each byte stands for, by torch's own conversion."""
    return torch.arange(256, dtype=torch.uint8).view(dtype).to(torch.float32)
