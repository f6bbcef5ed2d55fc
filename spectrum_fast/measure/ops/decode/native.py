"""Decoding in C++ (kernels/decode), equal to the bit to the torch forms; the formats have checked the operands."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.decode import reference
from spectrum_fast.measure.ops.memory import empty
from spectrum_fast.read.formats.codes import Codes, scale_values


def decode(codes: Codes) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.decode.decode`; columns in no order, groups of odd length stay in torch."""
    table, width = codes.table, codes.block[1]
    if codes.group_of_column is not None or (table is not None and width % 2):
        return reference.decode(codes)
    out = empty(*codes.shape, dtype=torch.float32 if table is None else table.dtype)
    stored = codes.codes.contiguous().view(torch.uint8)
    if table is not None and table.dtype == torch.bfloat16:
        every = scale_values(torch.arange(256, dtype=torch.uint8)).to(torch.bfloat16)
        tables = (table[None, :] * every[:, None]).contiguous()
        _native.decode_groups(stored.view(-1), codes.scale.contiguous().view(-1), tables.view(-1), out.view(-1))
        return out
    rows, row_bytes = stored.shape
    scale = _flat(scale_values(codes.scale))
    zero = None if codes.zero is None else _flat(codes.zero)
    if table is None:
        values = _byte_table(codes.codes.dtype)
        _native.decode_scaled(
            stored.view(-1), rows, codes.row_length, values, scale, zero, codes.block[0], width, out.view(-1)
        )
        return out
    groups = codes.scale.shape[1]
    if rows == 1:  # blocks that run on over the rows: each is a row for the kernel, which shares rows among threads
        rows, groups, row_bytes = groups, 1, width // 2
    _native.decode_nibbles(
        stored.view(-1), rows, groups, width, row_bytes, _flat(table), scale, zero, codes.low_first, out.view(-1)
    )
    return out


def _flat(values: Tensor) -> Tensor:
    return values.to(torch.float32).contiguous().view(-1)


@cache
def _byte_table(dtype: torch.dtype) -> Tensor:
    """What each byte stands for, by torch's own conversion."""
    return torch.arange(256, dtype=torch.uint8).view(dtype).to(torch.float32)
