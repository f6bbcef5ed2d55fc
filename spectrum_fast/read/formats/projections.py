"""Which rows or columns of a fused projection belong to which of its parts, model family by model family.

``qkv_proj`` is rows q, k, v in Phi-3, but rows ``[head, (q, k, v), head_dim]`` in GPT-NeoX's ``query_key_value``: the
name alone does not say. So the layout is taken from ``model_type`` and the head counts in ``config.json``; a family
that is not listed here, or counts that do not fit the weight, are refused. Each entry is held to the family's own code
in transformers (tests/read/formats/test_projections.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.config import with_text_part
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.weight_plan import FusedPart, WeightPlan

Config = Mapping[str, Any]
Parts = tuple[FusedPart, ...]


class _UnknownLayoutError(Exception):
    """What is missing to tell the layout."""


def split_fused(plan: WeightPlan, config: Config | None) -> tuple[WeightPlan, ...]:
    """One plan for each projection that the weight fuses; the plan itself if it fuses none.

    Parts are called after the module: ``...qkv_proj.q``, ``.k``, ``.v``; ``...gate_up_proj.gate``, ``.up``. All keep
    the whole parameter's name in ``parameter``.

    Raises:
        UnsupportedDtypeError: the configuration does not say how the weight is laid out.
    """
    kind = plan.name.rpartition(".")[2]
    if kind not in _FUSED_NAMES:
        return (plan,)
    try:
        parts = _parts_of(plan, kind, config)
    except _UnknownLayoutError as error:
        raise UnsupportedDtypeError(
            f"{plan.main}: {kind} cannot be split: {error}; scan it whole (without --split-fused) or exclude it"
        ) from None
    return tuple(
        replace(
            plan,
            name=f"{plan.name}.{part.name}",
            part=part,
            parts=(plan.parts or 1) * len(parts),
            whole_shape=plan.whole_shape or plan.matrix_shape,
        )
        for part in parts
    )


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


def _parts_of(plan: WeightPlan, kind: str, config: Config | None) -> Parts:
    for section in _sections(config):
        layouts = _LAYOUTS.get((section["model_type"], kind))
        if layouts is not None:
            return layouts(plan, section)
    known = [section["model_type"] for section in _sections(config)]
    if not known:
        raise _UnknownLayoutError("expected a model_type in config.json, found none")
    raise _UnknownLayoutError(f"its layout in models of type {' / '.join(known)} is not known to this version")


def _sections(config: Config | None) -> list[Config]:
    """The configuration and its text part, as far as they name a model type."""
    return [part for part in with_text_part(config) if isinstance(part.get("model_type"), str)]


def _count(config: Config, *names: str) -> int:
    for name in names:
        value = config.get(name)
        if type(value) is int and value > 0:
            return value
    raise _UnknownLayoutError(f"expected {' or '.join(names)} in config.json, found none")


def _flag(config: Config, name: str) -> bool:
    value = config.get(name)
    if not isinstance(value, bool):
        raise _UnknownLayoutError(f"expected {name} (true or false) in config.json, found {value!r}")
    return value


def _heads(config: Config) -> int:
    return _count(config, "num_attention_heads", "n_head", "n_heads")


def _head_dim(config: Config) -> int:
    head_dim = config.get("head_dim")
    if type(head_dim) is int and head_dim > 0:
        return head_dim
    hidden, heads = _count(config, "hidden_size", "n_embd", "n_embed", "d_model"), _heads(config)
    if hidden % heads:
        raise _UnknownLayoutError(f"{heads} heads do not divide the hidden size {hidden}")
    return hidden // heads


def _runs(names: str, widths: tuple[int, ...], axis: int = 0, repeats: int = 1) -> Parts:
    """Parts of these widths one after the other, the whole sequence ``repeats`` times."""
    extent = repeats * sum(widths)
    begins = [sum(widths[:place]) for place in range(len(widths))]
    return tuple(
        FusedPart(name, axis, repeats, begin, begin + width, extent)
        for name, begin, width in zip(names.split(), begins, widths, strict=True)
    )


def _qkv_runs(plan: WeightPlan, config: Config, axis: int = 0) -> Parts:  # noqa: ARG001
    """All of q, then all of k, then all of v; fewer heads for k and v where the configuration says so."""
    width = _head_dim(config)
    inner = config.get("attn_config")
    kv = config.get("num_key_value_heads")
    kv = kv if kv is not None or not isinstance(inner, Mapping) else inner.get("kv_n_heads")
    kv = kv if type(kv) is int and kv > 0 else _heads(config)
    return _runs("q k v", (_heads(config) * width, kv * width, kv * width), axis)


def _qkv_by_head(plan: WeightPlan, config: Config) -> Parts:  # noqa: ARG001
    """For each head its q, k and v."""
    width = _head_dim(config)
    return _runs("q k v", (width, width, width), repeats=_heads(config))


def _qkv_falcon(plan: WeightPlan, config: Config) -> Parts:
    """Three generations: grouped (q of a group, its k, its v), one k and v for all heads, or head by head."""
    heads, width = _heads(config), _head_dim(config)
    if _flag(config, "new_decoder_architecture"):
        groups = _count(config, "num_kv_heads", "n_head_kv")
        if heads % groups:
            raise _UnknownLayoutError(f"{groups} groups do not divide {heads} heads")
        return _runs("q k v", (heads // groups * width, width, width), repeats=groups)
    return _qkv_bigcode(plan, config)


def _qkv_bigcode(plan: WeightPlan, config: Config) -> Parts:
    """With multi-query all heads' q, then one k and v; without, head by head."""
    width = _head_dim(config)
    if _flag(config, "multi_query"):
        return _runs("q k v", (_heads(config) * width, width, width))
    return _qkv_by_head(plan, config)


def _qkv_gpt2(plan: WeightPlan, config: Config) -> Parts:
    """Columns: GPT-2 keeps its weights as [in, out]."""
    if ".crossattention." in plan.name:
        raise _UnknownLayoutError("in cross-attention it holds k and v only")
    return _qkv_runs(plan, config, axis=1)


def _two(plan: WeightPlan, config: Config, axis: int, *, by_turns: bool = False) -> Parts:
    """Gate and up: the halves of an axis, or by turns along it (packed experts are stored transposed)."""
    axis = 0 if by_turns and plan.decoder is read_mxfp4 else axis
    shape = plan.whole_shape or plan.matrix_shape
    extent = shape[-2:][axis] if shape is not None else 2 * _count(config, "intermediate_size")
    if extent % 2:
        raise _UnknownLayoutError(f"{extent} {'rows' if axis == 0 else 'columns'} do not make two halves")
    return _runs("gate up", (1, 1), axis, extent // 2) if by_turns else _runs("gate up", (extent // 2,) * 2, axis)


_HALVES = partial(_two, axis=0)
_HALVES_OF_COLUMNS = partial(_two, axis=1)

_EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "glm4_moe", "phimoe", "dots1")
"""Families whose experts transformers 5 fuses to [experts, 2 * inner, hidden] when it loads them."""

_LAYOUTS: Mapping[tuple[str, str], Callable[[WeightPlan, Config], Parts]] = {
    ("phi3", "qkv_proj"): _qkv_runs,
    ("phi3", "gate_up_proj"): _HALVES,
    ("glm", "gate_up_proj"): _HALVES,
    ("glm4", "gate_up_proj"): _HALVES,
    ("gpt_neox", "query_key_value"): _qkv_by_head,
    ("bloom", "query_key_value"): _qkv_by_head,
    ("persimmon", "query_key_value"): _qkv_by_head,
    ("falcon", "query_key_value"): _qkv_falcon,
    ("mpt", "Wqkv"): _qkv_runs,
    ("dbrx", "Wqkv"): _qkv_runs,
    ("gpt2", "c_attn"): _qkv_gpt2,
    ("gpt_bigcode", "c_attn"): _qkv_bigcode,
    ("gpt_oss", "gate_up_proj"): partial(_two, axis=1, by_turns=True),
    ("llama4", "gate_up_proj"): _HALVES_OF_COLUMNS,
    ("llama4_text", "gate_up_proj"): _HALVES_OF_COLUMNS,
    **{(family, "gate_up_proj"): _HALVES for family in _EXPERTS},
}
_FUSED_NAMES = frozenset(kind for _, kind in _LAYOUTS)
"""Last components of module names that fuse projections."""
