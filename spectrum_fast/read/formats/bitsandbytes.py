"""bitsandbytes: NF4 and FP4 with blockwise maxima (these may be quantised once more), and int8 with row maxima."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, missing, name_of, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan

_INT8_MAX = 127.0
_LARGEST = torch.finfo(torch.float32).max
_MAX_STATE_BYTES = 1 << 16
_NESTED = ("nested_absmax", "nested_quant_map")
_BESIDE = {
    ".weight.absmax": "absmax",
    ".weight.quant_map": "quant_map",
    ".weight.quant_state.bitsandbytes__nf4": "quant_state",
    ".weight.quant_state.bitsandbytes__fp4": "quant_state",
    ".weight.nested_absmax": "nested_absmax",
    ".weight.nested_quant_map": "nested_quant_map",
}


def read_4bit(
    codes: Tensor,
    absmax: Tensor,
    quant_map: Tensor,
    quant_state: Tensor,
    nested_absmax: Tensor | None = None,
    nested_quant_map: Tensor | None = None,
    *,
    kind: str = "",
) -> Codes:
    """``W.flat[i] = quant_map[code i] * absmax[i // blocksize]``; the high nibble of a byte comes first.

    With double quantisation, ``absmax[k]`` is a byte that stands for
    ``nested_quant_map[absmax[k]] * nested_absmax[k // nested_blocksize] + nested_offset``.

    Args:
        codes: uint8, two values a byte, any shape.
        absmax: one per block: float32, or uint8 if quantised once more.
        quant_map: 16 floats.
        quant_state: uint8, JSON: ``shape``, ``blocksize``, ``quant_type``, and for double quantisation
            ``nested_blocksize`` and ``nested_offset``.
        nested_absmax: floats, one per ``nested_blocksize`` of ``absmax``.
        nested_quant_map: 256 floats.
        kind: ``quant_type`` that the description's name promises; empty for either.

    Returns:
        A matrix of the shape in ``quant_state``; relative error of the decoded values 2^-23.

    Raises:
        UnsupportedDtypeError: the description is no JSON of this kind, or numbers of elements do not fit it.

    Source: bitsandbytes ``functional.py`` (``QuantState.from_dict``, ``dequantize_4bit``).
    """
    state = _read_state(quant_state, kind)
    # Sizes that the description states are held to what is stored before anything is made of them.
    shape = _shape(state.get("shape"), 2 * codes.numel())
    size = math.prod(shape)
    blocksize = _block_size(state, "blocksize", size)
    _require_count("codes", codes.numel(), -(-size // 2))
    _require_count("absmax", absmax.numel(), -(-size // blocksize))
    _require_count("quant_map", quant_map.numel(), 16)
    if nested_absmax is not None and nested_quant_map is not None:
        absmax = _decode_maxima(absmax, nested_absmax, nested_quant_map, state)
    table = quant_map.to(torch.float32).reshape(16)
    return Codes(codes.reshape(1, -1), absmax.reshape(1, -1), (1, blocksize), shape, table=table, low_first=False)


def read_int8(codes: Tensor, SCB: Tensor, weight_format: Tensor | None = None) -> Codes:
    """``W[i, j] = codes[i, j] * SCB[i] / 127``.

    Args:
        codes: int8 [rows, columns].
        SCB: float [rows], the maxima of rows.
        weight_format: 0 for row-major; older versions could save tiles for the GPU, which are not decoded.

    Returns:
        [rows, columns] that decode to float32; relative error 2^-23.

    Raises:
        UnsupportedDtypeError: another weight format, or the shapes do not fit.

    Source: bitsandbytes ``nn/modules.py`` (``Linear8bitLt``), ``int8_vectorwise_dequant``.
    """
    if weight_format is not None and (weight_format.numel() != 1 or int(weight_format.reshape(-1)[0]) != 0):
        raise UnsupportedDtypeError(
            f"weight_format: expected 0 (row-major), found {_shown(weight_format.reshape(-1).tolist())}"
        )
    rows, columns = codes.shape
    _require_count("SCB", SCB.numel(), rows)
    return Codes(codes, SCB.to(torch.float32).reshape(-1, 1) / _INT8_MAX, (1, columns), (rows, columns))


def _decode_maxima(absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, state: dict[str, Any]) -> Tensor:
    blocksize = _block_size(state, "nested_blocksize", absmax.numel())
    offset = state.get("nested_offset")
    if isinstance(offset, bool) or not isinstance(offset, (int, float)) or not abs(offset) <= _LARGEST:
        raise UnsupportedDtypeError(f"nested_offset: expected a number, found {_shown(offset)}")
    _require_count("nested_quant_map", nested_map.numel(), 256)
    _require_count("nested_absmax", nested_absmax.numel(), -(-absmax.numel() // blocksize))
    values = nested_map.to(torch.float32).reshape(256)[absmax.reshape(-1).to(torch.int64)]
    scales = nested_absmax.to(torch.float32).reshape(-1).repeat_interleave(blocksize)[: values.numel()]
    return values * scales + float(offset)


def _read_state(quant_state: Tensor, kind: str) -> dict[str, Any]:
    if quant_state.numel() > _MAX_STATE_BYTES:
        raise UnsupportedDtypeError(
            f"quant_state: expected at most {_MAX_STATE_BYTES} bytes, found {quant_state.numel()}"
        )
    try:
        state = json.loads(bytes(quant_state.reshape(-1).tolist()).decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise UnsupportedDtypeError(f"quant_state: expected JSON: {error}") from error
    if not isinstance(state, dict):
        raise UnsupportedDtypeError(f"quant_state: expected a JSON object, found {type(state).__name__}")
    found = state.get("quant_type")
    if found not in ((kind,) if kind else ("nf4", "fp4")):
        raise UnsupportedDtypeError(f"quant_type: expected {kind or 'nf4 or fp4'}, found {_shown(found)}")
    return state


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _shape(value: object, most: int) -> tuple[int, int]:
    """Two extents; neither is larger than the number of values that are stored."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int and side > 0 for side in value):
        raise UnsupportedDtypeError(f"shape: expected a matrix [rows, columns], found {_shown(value)}")
    if max(value) > most:
        raise UnsupportedDtypeError(f"shape: expected at most {most} values, as the codes hold, found {_shown(value)}")
    return value[0], value[1]


def _block_size(state: dict[str, Any], key: str, count: int) -> int:
    """The block size stated for ``count`` values; one that is larger than all of them means one block."""
    value = state.get(key)
    if type(value) is not int or not 0 < value < 2**63:
        raise UnsupportedDtypeError(f"{key}: expected a whole number above 0, of 63 bits, found {_shown(value)}")
    return min(value, max(1, count))


def _shown(value: object) -> str:
    """A value from the file for people, at most some eighty characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _require_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise UnsupportedDtypeError(f"{what}: expected {expected} elements, found {found}")


def _plan_4bit(packed: PackedWeight) -> WeightPlan:
    codes, companions = packed.codes, packed.companions
    nested = companions["absmax"].dtype == "U8" or not set(_NESTED).isdisjoint(companions)
    lost = [name_of(codes.name, FOUR_BIT, role) for role in _NESTED if nested and role not in companions]
    if lost:
        raise missing(packed, ", ".join(lost))
    if nested and companions["absmax"].dtype != "U8":
        raise refuse(packed, f"expected U8 in absmax beside nested_absmax, found {companions['absmax'].dtype}")
    decoder = partial(read_4bit, kind=companions["quant_state"].name[-3:])
    return WeightPlan(module_name(codes.name), codes.name, codes, companions, decoder, packed.layout)


def _plan_int8(packed: PackedWeight) -> WeightPlan:
    codes, companions = packed.codes, packed.companions
    if len(codes.shape) != 2 or companions["SCB"].element_count != codes.shape[0]:
        raise refuse(packed, f"expected a matrix with one SCB per row, found SCB {companions['SCB'].shape}")
    return WeightPlan(module_name(codes.name), codes.name, codes, companions, read_int8, packed.layout, codes.shape)


FOUR_BIT = Format(
    title="NF4/FP4 (bitsandbytes)",
    codes=".weight",
    companions=_BESIDE,
    marks=tuple(_BESIDE.values()),
    telling=dict.fromkeys(_BESIDE, ".weight"),
    types={"codes": ("U8",), "absmax": ("U8", "F32"), "quant_state": ("U8",)}
    | dict.fromkeys(("quant_map", *_NESTED), ("F32",)),
    required=("absmax", "quant_map", "quant_state"),
    plan=_plan_4bit,
    row="NF4, FP4, also with double quantisation | `weight` U8 + `absmax`, `quant_map`, `quant_state` | bitsandbytes "
    "| yes | bitsandbytes (`test_bitsandbytes.py`)",
)

INT8 = Format(
    title="int8 (bitsandbytes)",
    codes=".weight",
    companions={".SCB": "SCB", ".weight.SCB": "SCB", ".weight_format": "weight_format"},
    marks=("SCB", "weight_format"),
    telling={".weight.SCB": ".weight", ".SCB": ".weight"},
    types={"codes": ("I8",), "SCB": FLOATS, "weight_format": ("U8",)},
    required=("SCB",),
    plan=_plan_int8,
    row="LLM.int8 | `weight` I8 + `SCB` | bitsandbytes | yes, row-major only | bitsandbytes (`test_bitsandbytes.py`)",
)
