"""Two values a byte, looked up in a table of sixteen."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 21

_PAIR_TYPES = {torch.bfloat16: torch.int32, torch.float32: torch.int64}


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
