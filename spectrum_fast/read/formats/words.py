"""Integers of four or eight bits in 32-bit words, lowest bits first, and the group of each input."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError

WIDTHS = (4, 8)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """int32 [n, m] -> uint8 [n, 32 / bits * m]."""
    codes = words.contiguous().view(torch.uint8)
    return codes if bits == 8 else torch.stack((codes & 15, codes >> 4), dim=-1).view(words.shape[0], -1)


def group_index(stored: Tensor | None, inputs: int, groups: int) -> Tensor | None:
    """The group of each input, as int64, where it is stored.

    Raises:
        UnsupportedDtypeError: it is not one for each, or names a group that is not there.
    """
    index = None if stored is None else stored.reshape(-1).long()
    if index is not None and (index.numel() != inputs or int(index.min()) < 0 or int(index.max()) >= groups):
        raise UnsupportedDtypeError(f"g_idx: expected {inputs} groups below {groups}")
    return index
