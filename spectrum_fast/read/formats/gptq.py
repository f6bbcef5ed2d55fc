"""GPTQ: integers of 4 or 8 bits packed along the input features, with a group for each input feature."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.config import unnamed
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.formats.words import WIDTHS, group_index, unpack_words

_VERSIONS = {"": True, "gptq": True, "gptq_v2": False}
"""``checkpoint_format`` -> whether zero points are stored less one; the first is meant where none is named."""


def read_gptq(
    codes: Tensor, scales: Tensor, qzeros: Tensor, g_idx: Tensor | None = None, *, stored_less_one: bool
) -> Codes:
    """``W[j, i] = (q[i, j] - z[g(i), j]) * scales[g(i), j]``; z is ``qzeros``, plus one in the first format.

    A word of ``codes`` holds ``32 / bits`` input features of one output, lowest bits first; a word of ``qzeros`` as
    many outputs of one group. Which of 4 or 8 bits it is follows from the shapes.

    Args:
        codes: int32 [in_features * bits / 32, out_features].
        scales: float [groups, out_features].
        qzeros: int32 [groups, out_features * bits / 32].
        g_idx: group of each input feature (``desc_act`` puts them in any order), or None where groups are runs of equal
            length.
        stored_less_one: zero points are stored less one (``checkpoint_format`` ``gptq``); not so in ``gptq_v2``.

    Returns:
        [out_features, in_features] that decode to float32; relative error 2^-24.

    Raises:
        UnsupportedDtypeError: a group that is not there, or a zero point of the first format that is the largest there
            is: readers disagree whether it wraps to zero.

    Source: GPTQModel (``nn_modules/qlinear``), which writes and reads these files.
    """
    groups, outputs = scales.shape
    bits = 32 * qzeros.shape[1] // outputs
    inputs = codes.shape[0] * 32 // bits
    points = unpack_words(qzeros, bits).to(torch.float32)
    if stored_less_one:
        largest = (1 << bits) - 1
        if bool((points == largest).any()):
            raise UnsupportedDtypeError(
                f"a zero point is stored as {largest} and stands for {largest + 1}, which readers of the format do not "
                "agree on; expected checkpoint_format gptq_v2"
            )
        points += 1
    index = group_index(g_idx, inputs, groups)
    weight = unpack_words(codes.T, bits)
    scale = scales.to(torch.float32).T
    return Codes(weight, scale, (1, max(1, inputs // groups)), (outputs, inputs), points.T, group_of_column=index)


def _plan(packed: PackedWeight) -> WeightPlan:
    codes, companions, config = packed.codes, packed.companions, packed.config
    if config.format not in _VERSIONS:
        raise refuse(packed, f"config.json names format {config.format!r}, expected gptq or gptq_v2")
    scales, qzeros = companions["scales"].shape, companions["qzeros"].shape
    fits = (
        len(codes.shape) == len(scales) == len(qzeros) == 2 and scales[0] == qzeros[0] and scales[1] == codes.shape[1]
    )
    bits = next((width for width in WIDTHS if fits and 32 * qzeros[1] == width * scales[1]), 0)
    if not bits:
        raise refuse(packed, f"scales {scales} and qzeros {qzeros} do not fit codes of 4 or 8 bits")
    inputs = codes.shape[0] * 32 // bits
    if reason := unnamed(config.schemes, bits, inputs, scales[0]):
        raise refuse(packed, reason)
    index = companions.get("g_idx")
    if (index is None and inputs % scales[0]) or (index is not None and index.element_count != inputs):
        raise refuse(packed, f"expected g_idx [{inputs}], found {index.shape if index else 'none'}, {scales[0]} groups")
    parameter = codes.name.removesuffix("qweight") + "weight"
    layout = f"int{bits} (GPTQ{', v2' if config.format == 'gptq_v2' else ''})"
    decoder = partial(read_gptq, stored_less_one=_VERSIONS[config.format])
    shape = (scales[1], inputs)
    return WeightPlan(module_name(parameter), parameter, codes, companions, decoder, layout, shape)


GPTQ = Format(
    title="GPTQ",
    codes=".qweight",
    companions={".scales": "scales", ".qzeros": "qzeros", ".g_idx": "g_idx"},
    marks=("scales",),
    types={"codes": ("I32",), "scales": FLOATS, "qzeros": ("I32",), "g_idx": ("I32", "I64")},
    required=("qzeros",),
    methods=("gptq",),
    plan=_plan,
    row="GPTQ int4 and int8, formats `gptq` and `gptq_v2`, with and without `desc_act` "
    "| `qweight`, `qzeros`, `scales` (+ `g_idx`) and `quant_method: gptq` | GPTQModel "
    "| yes; 2, 3, 5, 6 or 7 bits, planar and marlin are refused: their words hold values across word borders, or the "
    "layout is a kernel's own | GPTQModel 7.7.0 (`test_gptq.py`: its packed tensors and decoded weights are kept "
    "beside it, since it needs a newer torch than this project pins; the same cases run against the library where "
    "it is installed)",
)
