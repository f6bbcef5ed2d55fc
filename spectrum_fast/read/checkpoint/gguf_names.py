"""GGUF's names of tensors to those of the model on the hub, and its entries to a configuration.

Architectures of Llama's family share one table; of any other the names stay GGUF's own. Where the converter laid the
experts of a layer on top of each other, each is a tensor again; where it reordered the rows of queries and keys,
:attr:`TensorRef.interleaved_heads` says so.

Source: ``convert_hf_to_gguf.py`` of llama.cpp; the tests compare with the ``gguf`` package and with transformers.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES
from spectrum_fast.read.checkpoint.header import MAX_TENSORS, Header
from spectrum_fast.read.checkpoint.naming import module_name, module_type
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.words import list_some

_FAMILY = {
    "llama": "llama",  # Mistral, Mixtral, SmolLM, Yi and others too
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "granite": "granite",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
}
"""GGUF's architecture -> ``model_type`` in transformers."""
_INTERLEAVED = ("llama", "olmo", "granite", "smollm3")
"""Those whose queries and keys the converter reorders."""
_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.*.gate_proj",
    "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_FOUR_NORMS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_OWN = {
    "llama": {  # with experts: Mixtral
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.*.w1",
        "ffn_down_exps": "block_sparse_moe.experts.*.w2",
        "ffn_up_exps": "block_sparse_moe.experts.*.w3",
    },
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "gemma2": _FOUR_NORMS | {"ffn_norm": "pre_feedforward_layernorm"},
    "gemma3": _FOUR_NORMS | {"ffn_norm": "pre_feedforward_layernorm"},
    "olmo2": _FOUR_NORMS,
}
"""Where an architecture departs from the table."""
_CONFIG = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
}
_LAYER_NAME = re.compile(r"blk\.([0-9]{1,6})\.([a-z_]+)\.(weight|bias)")


def to_hugging_face(headers: Sequence[Header]) -> tuple[list[Header], dict[str, Any], tuple[str, ...]]:
    """Rename the tensors of the GGUF files of one model.

    Args:
        headers: of all its files.

    Returns:
        The headers with the names of the model on the hub; what ``config.json`` would say, as far as the entries say
        it; notes for people.

    Raises:
        CheckpointError: the experts come to too many tensors.
    """
    said = ChainMap(*(header.metadata for header in headers))  # the first of several files has the entries
    architecture = said.get("general.architecture")
    if architecture not in _FAMILY:
        shown = shorten(architecture) if isinstance(architecture, str) else "none"
        note = f"names are those of the GGUF file: no table for its architecture, {shown}"
        return list(headers), {}, (note, *_noise_notes(headers))
    config: dict[str, Any] = {"model_type": _FAMILY[architecture]}
    for key, entry in _CONFIG.items():
        value = said.get(f"{architecture}.{entry}")
        if type(value) is int and 0 < value < 2**31:
            config[key] = value
    names = {ref.name for header in headers for ref in header.tensors}
    if "token_embd.weight" in names:
        config["tie_word_embeddings"] = "output.weight" not in names
    table = _LAYER | _OWN.get(architecture, {})
    renamed = []
    for header in headers:
        tensors = tuple(new for ref in header.tensors for new in _renamed(ref, table, architecture, config))
        if len(tensors) > MAX_TENSORS:
            raise CheckpointError(f"{header.path}: its experts come to more than {MAX_TENSORS} tensors")
        renamed.append(replace(header, tensors=tensors))
    return renamed, config, tuple(_noise_notes(renamed))


def _renamed(
    ref: TensorRef, table: Mapping[str, str], architecture: str, config: Mapping[str, Any]
) -> Iterator[TensorRef]:
    stem, _, ending = ref.name.rpartition(".")
    if ending in ("weight", "bias") and stem in _TOP:
        yield replace(ref, name=f"{_TOP[stem]}.{ending}")
        return
    found = _LAYER_NAME.fullmatch(ref.name)
    if found is None or found[2] not in table:
        yield ref
        return
    name = f"model.layers.{int(found[1])}.{table[found[2]]}.{found[3]}"
    if "*" in name:
        if len(ref.shape) != 3 or ref.shape[0] > MAX_TENSORS:
            yield ref
            return
        for expert in range(ref.shape[0]):
            yield replace(ref.item(expert), name=name.replace("*", str(expert)))
        return
    heads = 0
    if architecture in _INTERLEAVED and found[2] in ("attn_q", "attn_k") and len(ref.shape) == 2:
        heads = config.get("num_attention_heads", 0)
        heads = config.get("num_key_value_heads", heads) if found[2] == "attn_k" else heads
        heads = heads if heads and ref.shape[0] % (2 * heads) == 0 else 0
    yield replace(ref, name=name, interleaved_heads=heads)


def _noise_notes(headers: Sequence[Header]) -> Iterator[str]:
    """What a reader of the scores has to know of quantised weights."""
    kinds: dict[str, set[str]] = {}
    for ref in (ref for header in headers for ref in header.tensors if len(ref.shape) > 1):
        kinds.setdefault(module_type(module_name(ref.name)), set()).add(ref.dtype)
    packed = sorted({kind for found in kinds.values() for kind in found if kind in BLOCK_TYPES})
    if packed:
        yield (
            f"weights are quantised ({', '.join(packed)}): rounding adds noise to the bulk of their spectra, so that "
            "scores are not those of the weights they were made from"
        )
    mixed = sorted(name for name, found in kinds.items() if len(found) > 1)
    if packed and mixed:
        yield f"stored in more than one type, so that layers differ in noise: {list_some(mixed, show=shorten)}"
