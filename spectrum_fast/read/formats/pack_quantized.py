"""compressed-tensors ``pack-quantized``: integers of 4 or 8 bits, packed into words along the rows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.config import Scheme, unnamed
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.formats.words import WIDTHS, group_index, unpack_words


def read_pack_quantized(
    codes: Tensor,
    weight_scale: Tensor,
    weight_shape: Tensor,
    weight_zero_point: Tensor | None = None,
    weight_g_idx: Tensor | None = None,
    *,
    schemes: tuple[Scheme, ...] = (),
) -> Codes:
    """``W[i, j] = (q[i, j] - weight_zero_point[i, g]) * weight_scale[i, g]``, g the group of column j.

    A word holds ``32 / bits`` values of a row, lowest bits first, each plus ``2^(bits - 1)``. Zero points are packed in
    the same way along the rows.

    Args:
        codes: int32 [rows, ceil(columns * bits / 32)], bits 4 or 8.
        weight_scale: float; one number, [rows, 1] or [rows, groups].
        weight_shape: integers (rows, columns).
        weight_zero_point: int32 [ceil(rows * bits / 32), groups], or None for symmetric codes.
        weight_g_idx: group of each column, or None (or all -1) where groups are runs of equal length.
        schemes: what the configuration says of the weights.

    Returns:
        [rows, columns] that decode to float32; relative error 2^-24.

    Raises:
        UnsupportedDtypeError: the shapes do not fit each other or the configuration, or do not tell 4 from 8 bits.

    Source: compressed-tensors, ``compressors/pack_quantized``.
    """
    rows, columns = (int(extent) for extent in weight_shape.reshape(-1).tolist())
    fitting = [bits for bits in WIDTHS if min(rows, columns) > 0 and codes.shape == (rows, -(-columns * bits // 32))]
    if len(fitting) != 1:
        raise UnsupportedDtypeError(
            f"expected words of 4 or 8 bit codes for shape ({rows}, {columns}), found {tuple(codes.shape)}"
        )
    bits = fitting[0]
    scale = weight_scale.to(torch.float32)
    scale = scale.reshape(1, 1) if scale.numel() == 1 else scale
    if scale.ndim != 2 or scale.shape[0] not in (1, rows):
        raise UnsupportedDtypeError(f"expected scales [{rows}, groups], found {tuple(scale.shape)}")
    groups = scale.shape[1]
    if reason := unnamed(schemes, bits, columns, groups, weight_zero_point is None):
        raise UnsupportedDtypeError(reason)
    scale = scale.expand(rows, groups)
    zero = None
    if weight_zero_point is not None:
        if weight_zero_point.shape != (-(-rows * bits // 32), groups):
            raise UnsupportedDtypeError(
                f"zero points {tuple(weight_zero_point.shape)} do not fit scales {tuple(scale.shape)}"
            )
        points = unpack_words(weight_zero_point.T.contiguous(), bits)[:, :rows].T
        zero = points.to(torch.float32) - (1 << (bits - 1))
    is_used = weight_g_idx is not None and not bool((weight_g_idx == -1).all())
    index = group_index(weight_g_idx if is_used else None, columns, groups)
    if index is None and columns % groups:
        raise UnsupportedDtypeError(f"{groups} groups do not divide {columns} columns")
    block, shape = (1, columns // groups), (rows, columns)
    if bits == 8:  # plus 128 is the other sign
        signed = (unpack_words(codes, bits)[:, :columns] ^ 128).view(torch.int8)
        return Codes(signed, scale, block, shape, zero, group_of_column=index)
    table = torch.arange(-8, 8, dtype=torch.float32, device=codes.device)
    return Codes(codes.contiguous().view(torch.uint8), scale, block, shape, zero, table, group_of_column=index)


def _plan(packed: PackedWeight) -> WeightPlan:
    codes, config = packed.codes, packed.config
    if config.format not in ("", "pack-quantized", "mixed-precision"):
        raise refuse(packed, f"config.json names format {config.format!r}, expected 'pack-quantized'")
    if len(codes.shape) != 2 or packed.companions["weight_shape"].shape != (2,):
        raise refuse(packed, "expected one matrix")
    unknown = [width for width in config.bits if width not in WIDTHS]
    if unknown:
        raise refuse(packed, f"config.json names {unknown} bits, expected 4 or 8")
    used = {role: ref for role, ref in packed.companions.items() if role != "input_scale"}
    parameter = codes.name.removesuffix("_packed")
    decoder = partial(read_pack_quantized, schemes=config.schemes)
    return WeightPlan(module_name(parameter), parameter, codes, used, decoder, packed.layout)


PACK_QUANTIZED = Format(
    title="packed codes (compressed-tensors)",
    codes=".weight_packed",
    companions={
        f".{role}": role
        for role in ("weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx", "input_scale")
    },
    alone=lambda _: True,
    telling=dict.fromkeys((".weight_shape", ".weight_g_idx", ".weight_global_scale"), ".weight_packed"),
    types={
        "codes": ("I32",),
        "weight_scale": FLOATS,
        "weight_shape": ("I64", "I32"),
        "weight_zero_point": ("I32",),
        "weight_g_idx": ("I32", "I64"),
    },
    required=("weight_scale", "weight_shape"),
    plan=_plan,
    row="packed int4 / int8 | `weight_packed` + `weight_scale`, `weight_shape` (+ zero points, group index) "
    "| compressed-tensors `pack-quantized` | yes | compressed-tensors (`test_pack_quantized.py`)",
)
