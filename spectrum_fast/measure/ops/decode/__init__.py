"""Codes and companions -> the weight matrix that they stand for.

The formats (:mod:`spectrum_fast.read.formats`) say what codes mean; here they become numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import UnsupportedDtypeError, UsageError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.dispatch import backend_module
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.projections import take_part
from spectrum_fast.read.formats.weight_plan import WeightPlan


def decode(codes: Codes) -> Tensor:
    """The numbers that codes stand for; see :class:`spectrum_fast.read.formats.codes.Codes`.

    Returns:
        A matrix in float32 or bfloat16 (MXFP4), where the codes lie; on all backends the same to the bit.

    Raises:
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    return backend_module("decode", codes.codes.device.type).decode(codes)


def read_codes(plan: WeightPlan, main: Tensor, companions: Mapping[str, Tensor]) -> Codes | Tensor | FactoredMatrix:
    """What the stored tensors of a weight mean; numbers, or factors, where they are such, or where no codes say it.

    Raises:
        UnsupportedDtypeError: companions contradict the codes.
    """
    if plan.decoder is None:
        return main
    try:
        return plan.decoder(main, **companions)
    except UnsupportedDtypeError as error:
        raise UnsupportedDtypeError(
            f"stored as {plan.layout}: {error}; download or save the checkpoint again"
        ) from error


@overload
def decode_weight(plan: WeightPlan, main: Tensor, companions: Mapping[str, Tensor]) -> Tensor | FactoredMatrix: ...
@overload
def decode_weight(plan: WeightPlan, main: BlockMatrix, companions: Mapping[str, Tensor]) -> BlockMatrix: ...
def decode_weight(
    plan: WeightPlan, main: Tensor | BlockMatrix, companions: Mapping[str, Tensor]
) -> Tensor | BlockMatrix | FactoredMatrix:
    """Turn what was read into the matrix to score.

    Args:
        plan: what it is.
        main: the weight or its codes, as stored; a plain weight may come in blocks, decoded ones.
        companions: role -> tensor, as in ``plan.companions``.

    Returns:
        ``main`` itself for a plain weight that is scored whole; an adapter's as its factors; else a matrix in float32
        or bfloat16, where ``main`` lies.

    Raises:
        UnsupportedDtypeError: companions contradict the codes, or the weight has another size than the projections that
            it should fuse.
    """
    if isinstance(main, BlockMatrix):
        if not plan.comes_in_blocks:
            raise UsageError(f"{plan.name}: expected a weight that is decoded or split whole, found it in blocks")
        return main
    found = read_codes(plan, main, companions)
    weight = decode(found) if isinstance(found, Codes) else found
    if plan.part is None:
        return weight
    return take_part(weight if isinstance(weight, Tensor) else weight.whole(), plan.part)
