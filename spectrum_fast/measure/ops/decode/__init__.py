"""Codes and companions -> the weight matrix that they stand for.

The score is that of the exact product of code and scale, rounded once to float32; formats whose values fit bfloat16
exactly come out in bfloat16. Libraries often round once more, to the model's compute type: that is rounding of the
computation and no property of the stored weight, so it is left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import overload

from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError, UsageError
from spectrum_fast.measure.ops.decode.bitsandbytes import decode_4bit, decode_int8
from spectrum_fast.measure.ops.decode.gptq import decode_gptq
from spectrum_fast.measure.ops.decode.mxfp4 import decode_mxfp4
from spectrum_fast.measure.ops.decode.packed_int import decode_awq, decode_pack_quantized
from spectrum_fast.measure.ops.decode.scaled import decode_scaled
from spectrum_fast.read.checkpoint.weight_plan import FusedPart, WeightPlan
from spectrum_fast.read.stream.blocks import BlockMatrix

Parts = Mapping[str, Tensor]

DECODERS: Mapping[str, Callable[[WeightPlan, Tensor, Parts], Tensor]] = MappingProxyType(
    {
        "": lambda plan, main, parts: main,  # noqa: ARG005
        "scaled": lambda plan, main, parts: decode_scaled(
            main, parts["scale"], plan.block or tuple(main.shape), parts.get("zero_point")
        ),
        "mxfp4": lambda plan, main, parts: decode_mxfp4(main, parts["scale"]),  # noqa: ARG005
        "bitsandbytes-4bit": lambda plan, main, parts: decode_4bit(  # noqa: ARG005
            main,
            parts["absmax"],
            parts["quant_map"],
            parts["quant_state"],
            parts.get("nested_absmax"),
            parts.get("nested_quant_map"),
        ),
        "bitsandbytes-int8": lambda plan, main, parts: decode_int8(  # noqa: ARG005
            main, parts["SCB"], parts.get("weight_format")
        ),
        "pack-quantized": lambda plan, main, parts: decode_pack_quantized(  # noqa: ARG005
            main,
            parts["weight_scale"],
            parts["weight_shape"],
            parts.get("weight_zero_point"),
            parts.get("weight_g_idx"),
        ),
        "awq": lambda plan, main, parts: decode_awq(main, parts["scales"], parts["qzeros"]),  # noqa: ARG005
        "gptq": lambda plan, main, parts: decode_gptq(  # noqa: ARG005
            main, parts["scales"], parts["qzeros"], parts.get("g_idx"), stored_less_one=True
        ),
        "gptq-v2": lambda plan, main, parts: decode_gptq(  # noqa: ARG005
            main, parts["scales"], parts["qzeros"], parts.get("g_idx"), stored_less_one=False
        ),
    }
)
"""Decoder of each :attr:`WeightPlan.decoder`; the empty name passes a plain weight through."""


@overload
def decode_weight(plan: WeightPlan, main: Tensor, companions: Parts) -> Tensor: ...
@overload
def decode_weight(plan: WeightPlan, main: BlockMatrix, companions: Parts) -> BlockMatrix: ...
def decode_weight(plan: WeightPlan, main: Tensor | BlockMatrix, companions: Parts) -> Tensor | BlockMatrix:
    """Turn what was read into the matrix to score.

    Args:
        plan: what it is.
        main: the weight or its codes, as stored; a plain weight may come in blocks.
        companions: role -> tensor, as in ``plan.companions``.

    Returns:
        ``main`` itself for a plain weight that is scored whole; else a matrix in float32 or bfloat16, where ``main``
        lies.

    Raises:
        UnsupportedDtypeError: companions contradict the codes, or the weight has another size than the projections that
            it should fuse.
        UsageError: the plan names no known decoder.
    """
    if plan.decoder not in DECODERS:
        raise UsageError(f"unknown decoder {plan.decoder!r}: expected one of {', '.join(filter(None, DECODERS))}")
    if isinstance(main, BlockMatrix):
        if plan.decoder or plan.part is not None:
            raise UsageError(f"{plan.name}: expected a weight that is decoded or split whole, found it in blocks")
        return main
    try:
        weight = DECODERS[plan.decoder](plan, main, companions)
    except UnsupportedDtypeError as error:
        raise UnsupportedDtypeError(
            f"stored as {plan.layout}: {error}; download or save the checkpoint again"
        ) from error
    return weight if plan.part is None else take_part(weight, plan.part)


def take_part(weight: Tensor, part: FusedPart) -> Tensor:
    """One projection of a fused weight; a view where it is one run of rows or columns.

    Raises:
        UnsupportedDtypeError: the weight has another size than the configuration says.
    """
    if weight.ndim != 2 or weight.shape[part.axis] != part.extent:
        raise UnsupportedDtypeError(
            f"the configuration says that it fuses projections of {part.extent} {'columns' if part.axis else 'rows'} "
            f"together, found shape {tuple(weight.shape)}; scan it whole (without --split-fused)"
        )
    stretches = weight.unflatten(part.axis, (part.repeats, part.extent // part.repeats))
    return stretches.narrow(part.axis + 1, part.begin, part.end - part.begin).flatten(part.axis, part.axis + 1)
