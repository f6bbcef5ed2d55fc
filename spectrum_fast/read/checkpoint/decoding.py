"""Which packed layouts are decoded, and how: from names and shapes to :class:`WeightPlan`, or a refusal that says why.

Nothing is guessed: a layout is decoded only if its types, shapes and the configuration leave one meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.dtypes import require_decodable
from spectrum_fast.read.checkpoint.experts import expert_name, slice_first
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.checkpoint.quantisation_config import QuantisationConfig
from spectrum_fast.read.checkpoint.quantised import PackedWeight
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.checkpoint.weight_plan import WeightPlan
from spectrum_fast.read.storage.files import shorten

DEFAULT_BLOCK = (128, 128)
"""Block of DeepSeek's FP8 layout where the configuration does not say (DeepSeek-V3's inference code)."""

MAX_EXPERTS = 1 << 13
"""Most experts in one tensor; the largest published models fuse some hundreds."""

_FLOATS = ("F32", "F16", "BF16")
_FP8 = ("F8_E4M3", "F8_E5M2")
_MXFP4_BLOCK = 32


def plan_plain(ref: TensorRef) -> tuple[WeightPlan, ...]:
    """Plan a tensor that is stored as numbers: one matrix or vector, or one matrix per expert of a 3-D tensor.

    Raises:
        UnsupportedDtypeError: its storage type holds no numbers, or it has more than three extents.
    """
    require_decodable(ref)
    return _split(WeightPlan(module_name(ref.name), ref.name, ref))


def plan_packed(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    """Plan the decoding of a packed weight.

    Args:
        packed: codes and companions.
        config: what the checkpoint's configuration says.

    Returns:
        One plan, or one per expert where the codes fuse experts.

    Raises:
        UnsupportedDtypeError: a companion is missing, or the layout is not decoded; the message names the tensors.
    """
    codes = packed.codes
    if packed.missing:
        raise UnsupportedDtypeError(
            f"tensor {shorten(codes.name)} in {codes.file}: {packed.layout}: expected {', '.join(packed.missing)} "
            "beside it, found in no file of the checkpoint; download or save it again"
        )
    for what in (codes, *packed.companions.values()):
        if what.element_count == 0:
            raise refuse(packed, f"expected values in {shorten(what.name)}, found none, shape {what.shape}")
    roles = set(packed.companions)
    if packed.layout.startswith("MXFP4"):
        return _plan_mxfp4(packed)
    if packed.layout.endswith("4 (bitsandbytes)"):
        return _plan_bitsandbytes_4bit(packed)
    if packed.layout == "int8 (bitsandbytes)":
        return _plan_bitsandbytes_int8(packed)
    if codes.name.endswith(".weight_packed"):
        return _plan_pack_quantized(packed, config)
    if codes.name.endswith(".qweight"):
        return _plan_gptq(packed, config) if config.method == "gptq" else _plan_awq(packed, config)
    if roles <= {"weight_scale_inv", "weight_scale", "weight_zero_point", "scale_inv", "scale"}:
        return _plan_scaled(packed, config)
    raise refuse(packed)


def refuse(packed: PackedWeight, reason: str = "") -> UnsupportedDtypeError:
    """The refusal of a packed weight: its tensor, file, layout and what to do."""
    codes = packed.codes
    return UnsupportedDtypeError(
        f"tensor {shorten(codes.name)} in {codes.file}: stored as {packed.layout} ({codes.dtype} codes of shape "
        f"{codes.shape}), which this version does not decode{': ' + reason if reason else ''}; expected a plain weight "
        "or a layout listed in docs/formats.md: scan the unquantised checkpoint"
    )


def _split(plan: WeightPlan) -> tuple[WeightPlan, ...]:
    """One plan per expert of a 3-D tensor; companions that have as many entries are cut alongside, others shared."""
    main = plan.main
    if len(main.shape) <= 2:
        return (plan,)
    if len(main.shape) > 3 and not plan.decoder:
        raise UnsupportedDtypeError(
            f"tensor {shorten(main.name)} in {main.file}: expected at most 3 extents (experts, rows, columns), found "
            f"shape {main.shape}; exclude it"
        )
    count = main.shape[0]
    if count > MAX_EXPERTS:  # before a record is made of any
        raise UnsupportedDtypeError(
            f"tensor {shorten(main.name)} in {main.file}: expected at most {MAX_EXPERTS} experts, found {count} in "
            f"shape {main.shape}, which no published model comes near; exclude it"
        )
    return tuple(
        replace(
            plan,
            name=expert_name(plan.parameter, expert),
            main=slice_first(main, expert),
            companions={
                role: slice_first(ref, expert) if ref.shape[:1] == (count,) else ref
                for role, ref in plan.companions.items()
            },
            expert=expert,
            parts=count,
            whole_shape=plan.whole_shape or main.shape,
        )
        for expert in range(count)
    )


def _plan_mxfp4(packed: PackedWeight) -> tuple[WeightPlan, ...]:
    blocks, scales = packed.codes, packed.companions["scales"]
    if (
        blocks.dtype != "U8"
        or scales.dtype != "U8"
        or len(blocks.shape) != 4
        or blocks.shape[-1] != _MXFP4_BLOCK // 2
        or scales.shape != blocks.shape[:-1]
    ):
        raise refuse(
            packed,
            "expected U8 blocks [experts, rows, groups, 16] and U8 scales [experts, rows, groups], found "
            f"{scales.dtype} scales {scales.shape}",
        )
    parameter = blocks.name.removesuffix("_blocks")
    experts, rows, groups, _ = blocks.shape
    plan = WeightPlan(parameter, parameter, blocks, {"scale": scales}, "mxfp4", packed.layout, (1, _MXFP4_BLOCK))
    return _split(replace(plan, whole_shape=(experts, rows, groups * _MXFP4_BLOCK)))


def _plan_scaled(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    codes = packed.codes
    scales = [role for role in packed.companions if "scale" in role]
    if len(scales) != 1:
        raise refuse(packed, f"expected one scale, found {len(scales)}")
    role, scale = scales[0], packed.companions[scales[0]]
    zero_point = packed.companions.get("weight_zero_point")
    if codes.dtype == "I8":
        # Packed FP4 is written as I8 with a scale too; only compressed-tensors says what it means.
        if config.method != "compressed-tensors" or scale.dtype not in _FLOATS or role != "weight_scale":
            raise refuse(packed, "I8 with a scale is read only where config.json names compressed-tensors")
        if config.bits and set(config.bits) != {8}:
            raise refuse(packed, f"config.json names {config.bits} bits, I8 codes hold 8")
    elif codes.dtype not in _FP8:
        raise refuse(packed, f"a scale ({scale.name}) beside {codes.dtype}")
    elif scale.dtype not in (*_FLOATS, "F8_E8M0", "U8"):
        raise refuse(packed, f"expected a scale in F32, F16, BF16 or F8_E8M0, found {scale.dtype}")
    if zero_point is not None and (zero_point.dtype != "I8" or zero_point.shape != scale.shape):
        raise refuse(packed, f"expected I8 zero points {scale.shape}, found {zero_point.dtype} {zero_point.shape}")
    if len(codes.shape) not in (2, 3):
        raise refuse(packed, "expected a matrix, or one matrix per expert")
    block = _block_of(packed, scale, role, config)
    companions = {"scale": scale} | ({"zero_point": zero_point} if zero_point is not None else {})
    layout = f"{packed.layout}, {_describe_block(block, codes.shape)}"
    return _split(WeightPlan(module_name(codes.name), codes.name, codes, companions, "scaled", layout, block))


def _block_of(packed: PackedWeight, scale: TensorRef, role: str, config: QuantisationConfig) -> tuple[int, int]:
    """Rows and columns that share a scale, from the shapes; blocks with a ragged edge need a known size."""
    rows, columns = packed.codes.shape[-2:]
    if scale.element_count == 1:
        return rows, columns
    grid = scale.shape
    if len(packed.codes.shape) == 3:
        if grid[:1] != packed.codes.shape[:1] or len(grid) not in (1, 3):
            raise refuse(packed, f"scales {grid} do not fit: expected one scale, row or grid per expert")
        grid = grid[1:] or (1, 1)
    if len(grid) != 2:
        raise refuse(packed, f"scales {grid}: expected one number, one per row, or a grid of blocks")
    if grid == (1, 1):
        return rows, columns
    known = [*config.blocks] if config.blocks else [DEFAULT_BLOCK]
    if role == "weight_scale" and grid == (rows, 1):  # one per channel, and not a grid of blocks of one row
        return 1, columns
    fitting = [block for block in known if grid == (math.ceil(rows / block[0]), math.ceil(columns / block[1]))]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and rows % grid[0] == 0 and columns % grid[1] == 0:
        return rows // grid[0], columns // grid[1]
    raise refuse(
        packed,
        f"scales {grid} do not fit: expected blocks of {' or '.join(f'{r}x{c}' for r, c in known)}, or a grid that "
        f"divides {rows} x {columns}",
    )


def _describe_block(block: tuple[int, int], shape: tuple[int, ...]) -> str:
    rows, columns = shape[-2:]
    if block == (rows, columns):
        return "one scale"
    if block == (1, columns):
        return "one scale per row"
    if block[0] == 1:
        return f"one scale per {block[1]} columns"
    return f"one scale per {block[0]}x{block[1]} block"


def _plan_bitsandbytes_4bit(packed: PackedWeight) -> tuple[WeightPlan, ...]:
    codes, companions = packed.codes, packed.companions
    nested = "nested_absmax" in companions
    expected = {"absmax": ("U8",) if nested else _FLOATS, "quant_map": _FLOATS, "quant_state": ("U8",)}
    expected |= {"nested_absmax": _FLOATS, "nested_quant_map": _FLOATS} if nested else {}
    if set(companions) != set(expected):
        raise refuse(packed, f"expected {', '.join(sorted(expected))}, found {', '.join(sorted(companions))}")
    _require_types(packed, "U8", companions, expected)
    return (WeightPlan(module_name(codes.name), codes.name, codes, companions, "bitsandbytes-4bit", packed.layout),)


def _plan_bitsandbytes_int8(packed: PackedWeight) -> tuple[WeightPlan, ...]:
    codes, companions = packed.codes, packed.companions
    expected = {"SCB": _FLOATS, "weight_format": ("U8",)}
    if not set(companions) <= set(expected):
        raise refuse(packed, f"expected {', '.join(sorted(expected))}, found {', '.join(sorted(companions))}")
    _require_types(packed, "I8", companions, expected)
    if len(codes.shape) != 2 or companions["SCB"].element_count != codes.shape[0]:
        raise refuse(packed, f"expected a matrix with one SCB per row, found SCB {companions['SCB'].shape}")
    return (WeightPlan(module_name(codes.name), codes.name, codes, companions, "bitsandbytes-int8", packed.layout),)


def _plan_pack_quantized(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    codes, companions = packed.codes, packed.companions
    if config.format not in ("", "pack-quantized", "mixed-precision"):
        raise refuse(packed, f"config.json names format {config.format!r}, expected 'pack-quantized'")
    allowed = {"weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"}
    if set(companions) - allowed - {"input_scale"}:
        raise refuse(packed, f"{', '.join(sorted(set(companions) - allowed))} beside it")
    wanted = {"weight_scale": _FLOATS, "weight_shape": ("I64", "I32"), "weight_zero_point": ("I32",)}
    wanted["weight_g_idx"] = ("I32", "I64")
    used = {role: ref for role, ref in companions.items() if role in allowed}
    _require_types(packed, "I32", used, wanted)
    if len(codes.shape) != 2 or companions["weight_shape"].shape != (2,):
        raise refuse(packed, "expected one matrix")
    unknown = [width for width in config.bits if width not in (4, 8)]
    if unknown:
        raise refuse(packed, f"config.json names {unknown} bits, expected 4 or 8")
    parameter = codes.name.removesuffix("_packed")
    return (WeightPlan(module_name(parameter), parameter, codes, used, "pack-quantized", packed.layout),)


def _plan_awq(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    """AWQ and GPTQ give their tensors the same names: only the configuration tells them apart."""
    codes, companions = packed.codes, packed.companions
    if config.method != "awq":
        raise refuse(packed, f"config.json names {config.method or 'no method'}, only awq and gptq are read")
    if config.format not in ("", "gemm") or config.bits not in ((), (4,)):
        raise refuse(packed, f"version {config.format or 'unknown'} with {config.bits} bits, expected gemm with 4")
    if set(companions) != {"qzeros", "scales"}:
        raise refuse(packed, f"expected qzeros and scales, found {', '.join(sorted(companions))}")
    _require_types(packed, "I32", companions, {"qzeros": ("I32",), "scales": _FLOATS})
    scales, qzeros = companions["scales"].shape, companions["qzeros"].shape
    if len(codes.shape) != 2 or len(scales) != 2 or scales[0] == 0 or codes.shape[0] % scales[0]:
        raise refuse(packed, f"scales {scales} do not divide the rows")
    if scales[1] != 8 * codes.shape[1] or qzeros != (scales[0], codes.shape[1]):
        raise refuse(packed, f"scales {scales} and qzeros {qzeros} do not fit the codes")
    parameter = codes.name.removesuffix("qweight") + "weight"
    layout = "int4 (AWQ, gemm)"
    return (WeightPlan(module_name(parameter), parameter, codes, companions, "awq", layout),)


def _plan_gptq(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    """Zero points are stored less one in the first format, which is meant where the configuration names none."""
    codes, companions = packed.codes, packed.companions
    decoders = {"": "gptq", "gptq": "gptq", "gptq_v2": "gptq-v2"}
    if config.format not in decoders:
        raise refuse(packed, f"config.json names format {config.format!r}, expected gptq or gptq_v2")
    if not {"qzeros", "scales"} <= set(companions) <= {"qzeros", "scales", "g_idx"}:
        raise refuse(packed, f"expected qzeros, scales and g_idx, found {', '.join(sorted(companions))}")
    types = {"qzeros": ("I32",), "scales": _FLOATS, "g_idx": ("I32", "I64")}
    _require_types(packed, "I32", companions, types)
    scales, qzeros = companions["scales"].shape, companions["qzeros"].shape
    fits = (
        len(codes.shape) == len(scales) == len(qzeros) == 2 and scales[0] == qzeros[0] and scales[1] == codes.shape[1]
    )
    bits = [width for width in (4, 8) if fits and 32 * qzeros[1] == width * scales[1]]
    if not bits:
        raise refuse(packed, f"scales {scales} and qzeros {qzeros} do not fit codes of 4 or 8 bits")
    parameter = codes.name.removesuffix("qweight") + "weight"
    layout = f"int{bits[0]} (GPTQ{', v2' if config.format == 'gptq_v2' else ''})"
    return (WeightPlan(module_name(parameter), parameter, codes, companions, decoders[config.format], layout),)


def _require_types(
    packed: PackedWeight, codes_dtype: str, companions: Mapping[str, TensorRef], expected: Mapping[str, tuple[str, ...]]
) -> None:
    if packed.codes.dtype != codes_dtype:
        raise refuse(packed, f"expected {codes_dtype} codes")
    for role, ref in companions.items():
        if ref.dtype not in expected[role]:
            raise refuse(packed, f"expected {' or '.join(expected[role])} in {ref.name}, found {ref.dtype}")
