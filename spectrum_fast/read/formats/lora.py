"""LoRA: the difference that an adapter makes, ``scale B A``, as its two thin matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.read.formats.format import FLOATS, Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan

_PLAIN = re.compile(r"\^?[\w.\\*]{1,200}\$?")
"""Patterns of modules that are matched as PEFT does; others could take a regular expression for ever."""
_MOST_STARS = 2
_EMBEDDING = ".lora_embedding_B"


def read_lora(codes: Tensor, a: Tensor, *, scale: float, transposed: bool) -> FactoredMatrix:
    """``scale B A``, or its transpose where the layer keeps (in, out).

    Args:
        codes: B, (out, r).
        a: A, (r, in).
        scale: ``alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilised LoRA.
        transposed: of embeddings, and of layers with ``fan_in_fan_out``.

    Source: Hu et al., arXiv 2106.09685; PEFT's ``get_delta_weight``.
    """
    b, a = codes.to(torch.float64) * scale, a.to(torch.float64)
    return FactoredMatrix(a.T, b.T) if transposed else FactoredMatrix(b, a)


def _plan(packed: PackedWeight) -> WeightPlan:
    codes, a, said = packed.codes, packed.companions["a"], packed.config.adapter
    if said.get("peft_type") != "LORA":
        raise refuse(packed, "expected adapter_config.json beside it with peft_type LORA")
    if said.get("use_dora") or "magnitude" in packed.companions:
        raise refuse(packed, "DoRA rescales the whole weight: merge it and scan the merged model")
    if len(codes.shape) != 2 or len(a.shape) != 2 or codes.shape[1] != a.shape[0]:
        raise refuse(packed, f"expected B (out, r) and A (r, in), found {codes.shape} and {a.shape}")
    name = codes.name.removesuffix(".weight").removesuffix(".lora_B").removesuffix(_EMBEDDING)
    rank = codes.shape[1]
    if rank != _said_for(name, said, "rank_pattern", "r", packed):
        raise refuse(packed, f"rank {rank} is not what adapter_config.json says of it")
    alpha = _said_for(name, said, "alpha_pattern", "lora_alpha", packed)
    scale = alpha / (math.sqrt(rank) if said.get("use_rslora") else rank)
    transposed = codes.name.endswith(_EMBEDDING) or bool(said.get("fan_in_fan_out"))
    shape = (codes.shape[0], a.shape[1])
    return WeightPlan(
        name=name,
        parameter=f"{name}.weight",
        main=codes,
        companions={"a": a},
        decoder=partial(read_lora, scale=scale, transposed=transposed),
        layout=f"LoRA, rank {rank}",
        shape=shape[::-1] if transposed else shape,
        in_factors=True,
    )


def _said_for(name: str, said: Mapping[str, Any], pattern: str, default: str, packed: PackedWeight) -> float:
    """The number for a module: of the first pattern that its name ends with, as in PEFT, else the one for all."""
    patterns = said.get(pattern) or {}
    found = said.get(default)
    for key, value in patterns.items() if isinstance(patterns, Mapping) else ():
        if not _PLAIN.fullmatch(key) or key.count("*") > _MOST_STARS:
            raise refuse(packed, f"{pattern} holds {key!r}; expected names of modules")
        if re.match(rf"(.*\.)?({key})$", name):
            found = value
            break
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found < math.inf:
        raise UnsupportedDtypeError(f"adapter_config.json: {default}: expected a number above 0, found {found!r}")
    return found


def _of(codes: str, a: str, what: str) -> Format:
    return Format(
        title=f"LoRA of {what}",
        codes=codes,
        companions={a: "a", ".lora_magnitude_vector": "magnitude"},
        marks=("a",),
        telling={a: codes},
        types={"codes": FLOATS, "a": FLOATS},
        required=("a",),
        plan=_plan,
        row=f"LoRA adapters of {what}, as the difference that they make | `{codes[1:]}` + `{a[1:]}` beside "
        "`adapter_config.json` | PEFT | yes: `alpha / r`, rank-stabilised, `rank_pattern`, "
        "`alpha_pattern`; not DoRA | peft (`test_lora.py`)",
    )


LORA = _of(".lora_B.weight", ".lora_A.weight", "matrices")
LORA_EMBEDDING = _of(_EMBEDDING, ".lora_embedding_A", "embeddings")
