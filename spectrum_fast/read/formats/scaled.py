"""Codes times scales: FP8 and int8 with one scale per tensor, row, group of columns or block."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.config import Scheme
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, missing, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan

DEFAULT_BLOCK = (128, 128)
"""Block of DeepSeek's FP8 layout where the configuration does not say (DeepSeek-V3's inference code)."""

_MX_BLOCK = (1, 32)
"""Experts may be in the groups of OCP Microscaling Formats whatever block is named for the other weights (DeepSeek-V4;
so transformers reads them)."""

_FP8 = ("F8_E4M3", "F8_E5M2")
_SCALES = ("scale_inv", "scale")

Block = tuple[int, int]


def read_scaled(codes: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, block: Block) -> Codes:
    """``W[i, j] = (codes[i, j] - zero_point[i // a, j // b]) * scale[i // a, j // b]`` with ``(a, b) = block``.

    Args:
        codes: [rows, columns] in float8 e4m3, float8 e5m2 or int8.
        scale: ``ceil(rows / a) * ceil(columns / b)`` numbers, row-major, in a float type, in e8m0, or in uint8 (the
            exponent of a power of two, bias 127: the same bits).
        zero_point: int8, as many as scales.
        block: rows and columns that share a scale; the last blocks may be cut short.

    Returns:
        [rows, columns] that decode to float32. A product is exact if the scale has at most 20 significant bits, and
        else rounded once (relative error 2^-24).

    Raises:
        UnsupportedDtypeError: the number of scales does not fit.

    Source: DeepSeek-V3 ``inference/kernel.py`` (``weight_dequant``); compressed-tensors ``float-quantized`` and
    ``int-quantized``.
    """
    rows, columns = codes.shape
    grid = _grid((rows, columns), block)
    if scale.numel() != grid[0] * grid[1]:
        raise UnsupportedDtypeError(
            f"expected {grid[0]} x {grid[1]} scales, found {scale.numel()} of shape {tuple(scale.shape)}"
        )
    zero = None if zero_point is None else zero_point.to(torch.float32).reshape(grid)
    return Codes(codes, scale.reshape(grid), block, (rows, columns), zero)


def _plan(packed: PackedWeight) -> WeightPlan:
    codes, config, zero_point = packed.codes, packed.config, packed.companions.get("zero_point")
    found = [role for role in _SCALES if role in packed.companions]
    if not found:
        raise missing(packed, " or ".join(f"{codes.name}_{role}" for role in _SCALES))
    if len(found) != 1:
        raise refuse(packed, f"expected one scale, found {len(found)}")
    scale = packed.companions[found[0]]
    if codes.dtype == "I8":
        # Packed FP4 is written as I8 with a scale too; only compressed-tensors says what it means.
        if config.method != "compressed-tensors" or scale.dtype not in FLOATS or found != ["scale"]:
            raise refuse(packed, "I8 with a scale is read only where config.json names compressed-tensors")
    elif codes.dtype not in _FP8:
        raise refuse(packed, f"a scale ({scale.name}) beside {codes.dtype}")
    elif scale.dtype not in (*FLOATS, "F8_E8M0", "U8"):
        raise refuse(packed, f"expected a scale in F32, F16, BF16 or F8_E8M0, found {scale.dtype}")
    if zero_point is not None and (zero_point.dtype != "I8" or zero_point.shape != scale.shape):
        raise refuse(packed, f"expected I8 zero points {scale.shape}, found {zero_point.dtype} {zero_point.shape}")
    if len(codes.shape) not in (2, 3):
        raise refuse(packed, "expected a matrix, or one matrix per expert")
    kind = "int" if codes.dtype == "I8" else "float"
    schemes = [scheme for scheme in config.schemes if scheme.allows(8, kind)]
    if config.schemes and not schemes:
        raise refuse(packed, f"config.json names {config.bits} bits or another kind of number than {codes.dtype}")
    block = _block_of(packed, scale, schemes)
    companions = {"scale": scale} | ({"zero_point": zero_point} if zero_point is not None else {})
    writer = "DeepSeek" if found == ["scale_inv"] else "compressed-tensors or ModelOpt"
    layout = f"{'int8' if kind == 'int' else 'FP8'} ({writer}), {_describe(block, codes.shape)}"
    decoder = partial(read_scaled, block=block)
    return WeightPlan(module_name(codes.name), codes.name, codes, companions, decoder, layout, codes.shape)


def _block_of(packed: PackedWeight, scale: TensorRef, schemes: list[Scheme]) -> Block:
    """Rows and columns that share a scale: what the configuration says, if it fits; what it could be, if it is mute."""
    shape = packed.codes.shape
    rows, columns = shape[-2:]
    grid = (1, 1) if scale.element_count == 1 else scale.shape
    if len(shape) == 3 and scale.element_count != 1:
        if grid[:1] != shape[:1] or len(grid) not in (1, 3):
            raise refuse(packed, f"scales {grid} do not fit: expected one scale, row or grid per expert")
        grid = grid[1:] or (1, 1)
    if len(grid) != 2:
        raise refuse(packed, f"scales {grid}: expected one number, one per row, or a grid of blocks")
    said = [block for scheme in schemes if (block := _said(scheme, rows, columns)) is not None]
    known = said or [(rows, columns), DEFAULT_BLOCK, (1, columns)]
    if not said and grid[0] == rows and grid[1] < columns:
        known.append((1, columns // grid[1]))
    if len(shape) == 3 and (not said or (1, columns) in said):
        known.append((rows, 1))  # [in, out] experts: an output is a column
    fitting = {(min(a, rows), min(b, columns)): (a, b) for a, b in known if _fits((a, b), grid, rows, columns)}
    if not fitting and min(known)[0] > 1 and _fits(_MX_BLOCK, grid, rows, columns):
        return _MX_BLOCK
    if not fitting or (said and len(fitting) > 1):
        shown = " or ".join(f"{a}x{b}" for a, b in dict.fromkeys(known))
        raise refuse(
            packed,
            f"scales {scale.shape} do not fit {rows} x {columns} in blocks of {shown}"
            + (", which config.json names" if said else ", and config.json names no other"),
        )
    return next(iter(fitting.values()))


def _fits(block: Block, grid: tuple[int, ...], rows: int, columns: int) -> bool:
    """Whether a grid of scales is that of a block; the last blocks may be cut short, groups of a row may not."""
    return _grid((rows, columns), block) == grid and (block[0] > 1 or block[1] > columns or columns % block[1] == 0)


def _said(scheme: Scheme, rows: int, columns: int) -> Block | None:
    """The block that a scheme names; None where it is mute."""
    if scheme.strategy in ("", "block"):
        return scheme.block
    if scheme.strategy == "tensor":
        return rows, columns
    if scheme.strategy == "channel":
        return 1, columns
    return (1, scheme.group_size) if scheme.strategy == "group" and scheme.group_size else None


def _grid(shape: tuple[int, int], block: Block) -> tuple[int, int]:
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _describe(block: Block, shape: tuple[int, ...]) -> str:
    rows, columns = shape[-2:]
    if block[0] >= rows and block[1] >= columns:
        return "one scale"
    if block == (1, columns):
        return "one scale per row"
    if block[0] == 1:
        return f"one scale per {block[1]} columns"
    return f"one scale per {block[0]}x{block[1]} block"


def _holds_codes(ref: TensorRef) -> bool:
    """A weight with a scale beside it, or codes under another name: fused experts have no ``.weight``."""
    return f".{ref.name}".endswith(".weight") or not decodable(ref.dtype)


SCALED = Format(
    title="codes with scales (FP8, int8)",
    codes="",
    companions={"_scale_inv": "scale_inv", "_scale": "scale", "_zero_point": "zero_point"},
    marks=("scale_inv", "scale", "zero_point"),
    alone=lambda ref: ref.dtype.startswith("F8_") and len(ref.shape) > 1 and f".{ref.name}".endswith(".weight"),
    accepts=_holds_codes,
    telling={f".weight{ending}": ".weight" for ending in ("_scale_inv", "_scale", "_zero_point")},
    plan=_plan,
    row="FP8 e4m3 / e5m2 and int8, with a scale a block, row, group or tensor "
    "| `weight` + `weight_scale_inv` (float or e8m0), or + `weight_scale` (+ `weight_zero_point`); fused experts "
    "without `.weight` likewise | DeepSeek-V3, compressed-tensors "
    "| yes; the block is the one that `config.json` names, else 128 x 128, a row, a part of a row or the whole; int8 "
    "only where it names compressed-tensors | transformers, compressed-tensors (`test_scaled.py`)",
)
