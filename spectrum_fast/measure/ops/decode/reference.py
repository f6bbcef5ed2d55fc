"""Codes to numbers in torch operations: any layout, on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spectrum_fast.read.formats.codes import Codes, scale_values

_CHUNK_BYTES = 1 << 21

_PAIR_TYPES = {torch.bfloat16: torch.int32, torch.float32: torch.int64}


def decode(codes: Codes) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.decode.decode`."""
    if codes.table is None:
        weight = codes.codes.to(torch.float32)
    else:
        values = look_up_nibbles(codes.codes, codes.table, low_first=codes.low_first)
        weight = values.view(codes.codes.shape[0], -1)[:, : codes.row_length]
    scale = scale_values(codes.scale).to(weight.dtype)
    index = codes.group_of_column
    if index is not None:
        weight = weight if codes.zero is None else weight.sub_(codes.zero[:, index])
        return weight.mul_(scale[:, index]).contiguous()
    rows, (height, width) = weight.shape[0], codes.block
    # All whole rows of blocks at once (on a GPU every step is a launch), then the one that is cut short.
    whole = rows // height
    for first, count, tall in ((0, whole, height), (whole, 1, rows - whole * height)):
        if count and tall:
            begin = first * height
            stretch = weight[begin : begin + count * tall].unflatten(0, (count, tall))
            if codes.zero is not None:
                _per_block(stretch, codes.zero[first : first + count], width, Tensor.sub_)
            _per_block(stretch, scale[first : first + count], width, Tensor.mul_)
    return weight.reshape(codes.shape).contiguous()


def look_up_nibbles(codes: Tensor, table: Tensor, *, low_first: bool) -> Tensor:
    """Replace each byte by two table entries.

    Args:
        codes: uint8, contiguous, any shape.
        table: 16 entries in bfloat16 or float32.
        low_first: the low four bits hold the first value of the pair.

    Returns:
        ``2 * codes.numel()`` values in the table's type, flat.
    """
    byte = torch.arange(256, device=codes.device)
    low, high = table[byte & 15], table[byte >> 4]
    pairs = torch.stack((low, high) if low_first else (high, low), dim=1)
    wide = pairs.view(_PAIR_TYPES[table.dtype]).reshape(256)
    flat = codes.reshape(-1)
    values = torch.empty(flat.numel(), dtype=wide.dtype, device=codes.device)
    for start in range(0, flat.numel(), _CHUNK_BYTES):
        part = flat[start : start + _CHUNK_BYTES]
        values[start : start + part.numel()] = wide[part.to(torch.int64)]
    return values.view(table.dtype)


def _per_block(rows: Tensor, values: Tensor, width: int, apply_inplace: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Apply one value to each block: rows [n, height, columns] in runs of ``width`` columns, values [n, runs]."""
    full = rows.shape[2] // width
    if full:
        apply_inplace(rows[:, :, : full * width].unflatten(2, (full, width)), values[:, None, :full, None])
    if full < values.shape[1]:
        apply_inplace(rows[:, :, full * width :], values[:, None, full:])
