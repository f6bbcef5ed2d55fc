"""AWQ, version ``gemm``: integers of 4 bits packed along the outputs, eight to a word in an order of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.config import unnamed
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.formats.words import unpack_words

_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def read_awq(codes: Tensor, scales: Tensor, qzeros: Tensor) -> Codes:
    """``W[j, i] = (q[i, j] - qzeros[i // g, j]) * scales[i // g, j]``, g = in_features / groups.

    A word holds eight columns, column ``k`` at nibble ``(0, 4, 1, 5, 2, 6, 3, 7)[k]``.

    Args:
        codes: int32 [in_features, out_features / 8].
        scales: float [groups, out_features].
        qzeros: int32 [groups, out_features / 8].

    Returns:
        [out_features, in_features] that decode to float32; relative error 2^-24.

    Source: AutoAWQ, version ``gemm``, as read by compressed-tensors (``entrypoints/convert/converters/autoawq.py``).
    """
    inputs, groups = codes.shape[0], scales.shape[0]
    weight, points = (_in_order(words).T.contiguous() for words in (codes, qzeros))
    scale = scales.to(torch.float32).T
    return Codes(weight, scale, (1, inputs // groups), (scale.shape[0], inputs), points.to(torch.float32))


def _in_order(words: Tensor) -> Tensor:
    """int32 [n, m] -> uint8 [n, 8 m]."""
    order = torch.tensor(_ORDER, device=words.device)
    return unpack_words(words, 4).view(words.shape[0], -1, 8)[..., order].view(words.shape[0], -1)


def _plan(packed: PackedWeight) -> WeightPlan:
    codes, config = packed.codes, packed.config
    if config.format not in ("", "gemm"):
        raise refuse(packed, f"version {config.format}, expected gemm")
    scales, qzeros = packed.companions["scales"].shape, packed.companions["qzeros"].shape
    if len(codes.shape) != 2 or len(scales) != 2 or codes.shape[0] % scales[0]:
        raise refuse(packed, f"scales {scales} do not divide the rows")
    if scales[1] != 8 * codes.shape[1] or qzeros != (scales[0], codes.shape[1]):
        raise refuse(packed, f"scales {scales} and qzeros {qzeros} do not fit the codes")
    if reason := unnamed(config.schemes, 4, codes.shape[0], scales[0]):
        raise refuse(packed, reason)
    parameter = codes.name.removesuffix("qweight") + "weight"
    shape = (scales[1], codes.shape[0])
    layout = "int4 (AWQ, gemm)"
    return WeightPlan(module_name(parameter), parameter, codes, packed.companions, read_awq, layout, shape)


AWQ = Format(
    title="AWQ",
    codes=".qweight",
    companions={".scales": "scales", ".qzeros": "qzeros"},
    marks=("scales",),
    types={"codes": ("I32",), "scales": FLOATS, "qzeros": ("I32",)},
    required=("qzeros",),
    methods=("awq",),
    plan=_plan,
    row="AWQ int4, gemm | `qweight`, `qzeros`, `scales` and `quant_method: awq` | AutoAWQ | yes "
    "| compressed-tensors' converter (`test_awq.py`)",
)
