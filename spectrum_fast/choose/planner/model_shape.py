"""The model as it will stand in memory, from headers and ``config.json``: parameters with their shapes, in order.

transformers 5 fuses the experts of a layer into two parameters when it loads a checkpoint; partitions are cut from what
stands in memory, so experts are fused here in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import Checkpoint, TensorRef
from spectrum_fast.read.checkpoint.config import ties_embeddings
from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.naming import is_buffer, is_embedding, is_head, layer_index, module_name
from spectrum_fast.read.formats.recognition import find_packed

_EXPERT = re.compile(r"(?P<home>.*\bexperts)\.(?P<index>\d+)\.(?P<part>[A-Za-z_]\w*)\.weight$")
_GATE_AND_UP = frozenset({"gate_proj", "up_proj", "w1", "w3"})


@dataclass(frozen=True)
class ParameterShape:
    """One parameter in memory.

    Attributes:
        name: full name; for fused experts the name that the fused parameter has.
        shape: extents in memory.
        sources: module names in the checkpoint that it is made of; one, but for fused experts.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """The module that holds it: the name without ``.weight`` or ``.bias``."""
        return module_name(self.name).removesuffix(".bias")

    @property
    def is_linear(self) -> bool:
        """Whether it is the weight of a linear layer inside the network: a matrix, no lookup table, no head."""
        return len(self.shape) == 2 and self.name.endswith(".weight") and not (self.is_embedding or self.is_head)

    @property
    def is_embedding(self) -> bool:
        """Whether it is a lookup table."""
        return is_embedding(self.name)

    @property
    def is_head(self) -> bool:
        """Whether it is the output projection."""
        return is_head(self.name)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a plan needs to know of a model.

    Attributes:
        name: display name.
        parameters: in checkpoint order.
        layers: number of layers.
        hidden: width of the residual stream.
        heads: attention heads; only the bytes of attention's statistics depend on it.
        vocab: rows of the output projection.
        rotary: width of the rotary embedding of one head.
        experts_per_token: experts that a token visits; 0 without experts.
        tied: whether the head is the embedding.
        notes: what was assumed.
    """

    name: str
    parameters: tuple[ParameterShape, ...]
    layers: int
    hidden: int
    heads: int
    vocab: int
    rotary: int
    experts_per_token: int = 0
    tied: bool = False
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Numbers in all parameters."""
        return sum(parameter.count for parameter in self.parameters)


def read_model_shape(checkpoint: Checkpoint) -> ModelShape:
    """Describe the model that a checkpoint will become in memory; nothing but headers and config is used.

    Args:
        checkpoint: opened; stored as plain numbers.

    Raises:
        CheckpointError: it holds packed weights, or no embedding or layer from which the sizes could be told.
    """
    quantised = find_packed(checkpoint.tensors)
    if quantised.packed:
        first = next(iter(quantised.packed.values()))
        raise CheckpointError(
            f"{checkpoint.name}: a plan starts from unquantised shapes, found {first.codes.name} stored as "
            f"{first.layout}; plan with the original checkpoint (method qlora quantises it)"
        )
    tensors = [ref for ref in checkpoint.tensors if not is_buffer(ref.name) and decodable(ref.dtype)]
    parameters = tuple(_fuse_experts(tensors))
    config = _text_config(checkpoint.config)
    tables = [p for p in parameters if p.is_embedding and len(p.shape) == 2]
    heads = [p for p in parameters if p.is_head and len(p.shape) == 2]
    layers = {index for p in parameters if (index := layer_index(p.name)) is not None}
    if not tables or not layers:
        raise CheckpointError(
            f"{checkpoint.name}: expected the embedding and the layers of a language model, found "
            f"{len(tables)} lookup tables and {len(layers)} layers among {len(parameters)} parameters; "
            "give the folder of the whole model"
        )
    table = max(tables, key=lambda p: p.shape[0])
    notes = []
    tied = not heads or ties_embeddings(checkpoint.config)
    hidden = table.shape[1]
    count = _integer(config, "num_attention_heads", "n_head", "n_heads")
    if count is None:
        count = max(1, hidden // 128)
        notes.append(f"config.json names no attention heads: {count} heads of 128 assumed")
    per_token = 0
    if any(len(p.sources) > 1 for p in parameters):
        found = _integer(config, "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k")
        per_token = found or 2
        if found is None:
            notes.append("config.json names no experts per token: 2 assumed")
    return ModelShape(
        name=checkpoint.name,
        parameters=tuple(p for p in parameters if not (tied and p.is_head)),
        layers=len(layers),
        hidden=hidden,
        heads=count,
        vocab=(heads[0] if heads else table).shape[0],
        rotary=_rotary_width(config, hidden, count),
        experts_per_token=per_token,
        tied=tied,
        notes=tuple(notes),
    )


def _fuse_experts(tensors: Iterable[TensorRef]) -> Iterable[ParameterShape]:
    """Parameters in order; a layer's experts become ``gate_up_proj`` (E, 2 f, h) and ``down_proj`` (E, h, f)."""
    plain: dict[str, ParameterShape] = {}
    experts: dict[tuple[str, str], list[TensorRef]] = {}
    for ref in tensors:
        match = _EXPERT.fullmatch(ref.name)
        if match is None:
            plain[ref.name] = ParameterShape(ref.name, ref.shape, (module_name(ref.name).removesuffix(".bias"),))
            continue
        part = "gate_up_proj" if match["part"] in _GATE_AND_UP else "down_proj"
        name = f"{match['home']}.{part}"
        experts.setdefault((match["home"], part), []).append(ref)
        plain.setdefault(name, ParameterShape(name, (), ()))
    for (home, part), members in experts.items():
        count = len({_expert_index(ref.name) for ref in members})
        rows = sum(ref.shape[0] for ref in members) // count
        shape = (count, rows, members[0].shape[1])
        name = f"{home}.{part}"
        plain[name] = ParameterShape(name, shape, tuple(module_name(ref.name) for ref in members))
    return plain.values()


def _expert_index(name: str) -> str:
    match = _EXPERT.fullmatch(name)
    return match["index"] if match else ""


def _text_config(config: dict[str, Any] | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _rotary_width(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Width of the cosines: that of a head, or the part of it that is rotated."""
    head = _integer(config, "head_dim") or max(1, hidden // heads)
    rope = config.get("rope_parameters")
    share = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    share = share or config.get("partial_rotary_factor") or config.get("rotary_pct") or 1.0
    return int(head * share) if isinstance(share, (int, float)) and 0 < share <= 1 else head


def _integer(config: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
