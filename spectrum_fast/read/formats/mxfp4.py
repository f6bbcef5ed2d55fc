"""MXFP4: four-bit floats (e2m1) in groups of 32 that share a power of two."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.format import Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Value of each four-bit code: OCP Microscaling Formats 1.0, section 5.3.3."""

_GROUP = 32


def read_mxfp4(codes: Tensor, scales: Tensor) -> Codes:
    """``W[i, 32 g + 2 k] = E2M1[codes[i, g, k] & 15] * 2^(scales[i, g] - 127)``; the high nibble is at ``2 k + 1``.

    Args:
        codes: uint8 [rows, groups, 16].
        scales: uint8 [rows, groups]; 255 means NaN.

    Returns:
        [rows, 32 * groups] that decode to bfloat16, exactly: four bits of mantissa and an exponent of eight. (Codes of
        a scale above 251 may exceed the largest bfloat16 and come out infinite; such a weight is not scored.)
        transformers holds the transpose, [experts, in, out]; singular values are the same.

    Source: gpt-oss checkpoints; OCP Microscaling Formats 1.0.
    """
    rows, groups, _ = codes.shape
    return Codes(codes.reshape(rows, -1), scales, (1, _GROUP), (rows, _GROUP * groups), table=_table_on(codes.device))


@cache
def _table_on(device: torch.device) -> Tensor:
    """The values, brought there once: a copy from the host would make a GPU wait for every weight."""
    return torch.tensor(E2M1, dtype=torch.bfloat16, device=device)


def _plan(packed: PackedWeight) -> WeightPlan:
    blocks, scales = packed.codes, packed.companions["scales"]
    if len(blocks.shape) != 4 or blocks.shape[-1] != _GROUP // 2 or scales.shape != blocks.shape[:-1]:
        raise refuse(
            packed,
            "expected U8 blocks [experts, rows, groups, 16] and U8 scales [experts, rows, groups], found "
            f"{scales.dtype} scales {scales.shape}",
        )
    parameter = blocks.name.removesuffix("_blocks")
    shape = (*blocks.shape[:2], blocks.shape[2] * _GROUP)
    return WeightPlan(parameter, parameter, blocks, packed.companions, read_mxfp4, packed.layout, shape)


MXFP4 = Format(
    title="MXFP4 (gpt-oss)",
    codes="_blocks",
    companions={"_scales": "scales"},
    marks=("scales",),
    alone=lambda ref: ref.dtype == "U8" and len(ref.shape) >= 3,
    telling={"_scales": "_blocks"},
    telling_types=("U8",),
    types={"codes": ("U8",), "scales": ("U8",)},
    required=("scales",),
    plan=_plan,
    row="MXFP4 | `*_blocks` + `*_scales` | gpt-oss | yes, one expert at a time | transformers (`test_mxfp4.py`)",
)
