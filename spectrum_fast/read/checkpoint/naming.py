"""What a parameter's name says: module, type, layer, role. Pure functions on strings.

Types follow the published Spectrum results: everything after the first numeric path component.
"""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["embedding", "head", "other"]
"""What a module is for: a lookup table, the output projection, or anything else."""

# Last path component of a lookup table, whatever stands before it.
_EMBEDDINGS = frozenset(
    {
        "embed_tokens",  # Llama, Qwen, Mistral, Gemma, OPT, DeepSeek (also the copy in its multi-token layer)
        "embed_in",  # GPT-NeoX
        "wte",  # GPT-2, MPT, Falcon's ancestors
        "wpe",
        "tok_embeddings",  # Llama as first published, Mistral's consolidated files
        "word_embeddings",  # BERT, BLOOM, Falcon, ChatGLM
        "position_embeddings",
        "token_type_embeddings",
        "embed_positions",
        "token_embedding",
        "position_embedding",
        "wtte",
    }
)
_TOP_EMBEDDINGS = frozenset({"shared", "embedding", "embeddings", "embed", "backbone.embeddings", "backbone.embedding"})
_HEADS = frozenset({"lm_head", "embed_out", "output_layer"})
_TOP_HEADS = frozenset({"output", "cls.predictions.decoder", "head", "transformer.ff_out"})
LANGUAGE_MODEL = "language-model"
"""Name of the tower that reads and writes text; in a plain language model all modules are its."""

_TOWER_WORDS = {
    "projector": ("projector", "connector", "aligner", "resampler", "abstractor", "mlp1"),
    "vision": ("vision", "visual", "image", "img", "vit"),
    "audio": ("audio", "speech", "sound"),
    LANGUAGE_MODEL: ("language", "text", "llm", "thinker"),
}
"""Tower -> words of the path components that name it; of two in one component the first counts."""
_PREFIXES = ("model.", "transformer.", "language_model.", "decoder.", "encoder.")
_BUFFERS = frozenset(
    {
        "position_ids",
        "token_type_ids",
        "inv_freq",
        "masked_bias",
        "num_batches_tracked",
        "relative_position_index",
        "cos_cached",
        "sin_cached",
    }
)
# Parameters of two extents whose rows or entries are looked up or applied one by one: they multiply nothing.
_TABLES = frozenset(
    {
        "A_log",  # Mamba, Jamba, Falcon-Mamba: decay rates of the state
        "relative_attention_bias",  # T5, MPNet
        "relative_position_bias_table",  # Swin, BEiT
    }
)
_DIGITS = re.compile(r"([0-9]+)")
_NUMBER = re.compile(r"(?<![^.])[0-9]{1,9}(?![^.])")
_EXPERT = re.compile(r"(?<=experts\.)[0-9]{1,9}(?![^.])")
"""Whole components; the second after one that ends in ``experts``."""


def module_name(parameter: str) -> str:
    """Strip a final ``.weight``; fused expert parameters have none and stay as they are.

    >>> module_name("model.layers.0.mlp.down_proj.weight")
    'model.layers.0.mlp.down_proj'
    >>> module_name("model.layers.0.mlp.experts.gate_up_proj")
    'model.layers.0.mlp.experts.gate_up_proj'
    """
    return parameter.removesuffix(".weight")


def module_type(name: str) -> str:
    """Everything after the first numeric path component, or the full name if there is none (or nothing after it).

    >>> module_type("model.layers.0.mlp.down_proj")
    'mlp.down_proj'
    >>> module_type("model.layers.3.mlp.experts.17.down_proj")
    'mlp.experts.17.down_proj'
    >>> module_type("lm_head")
    'lm_head'
    >>> module_type("classifier.0")
    'classifier.0'
    """
    found = _NUMBER.search(name)
    return (name[found.end() + 1 :] if found else "") or name


def merged_experts_type(type_name: str) -> str:
    """Write ``*`` for the index of an expert, so that all experts of a projection form one type.

    >>> merged_experts_type("mlp.experts.17.down_proj")
    'mlp.experts.*.down_proj'
    >>> merged_experts_type("mlp.down_proj")
    'mlp.down_proj'
    """
    return _EXPERT.sub("*", type_name)


def path_before_layer(name: str) -> tuple[str, ...]:
    """Path components before the first numeric one; all, if there is none.

    >>> path_before_layer("model.visual.blocks.3.attn.qkv")
    ('model', 'visual', 'blocks')
    """
    found = _NUMBER.search(name)
    before = name[: found.start()] if found else f"{name}."
    return tuple(before.split(".")[:-1])


def tower_word(component: str) -> str:
    """The kind of tower that a path component is called by; empty if none.

    >>> [tower_word(component) for component in ("vision_tower", "speech_encoder", "text_model", "layers")]
    ['vision', 'audio', 'language-model', '']
    """
    words = component.split("_")
    return next((tower for tower, known in _TOWER_WORDS.items() if not set(words).isdisjoint(known)), "")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which numbers inside a name count as numbers.

    >>> sorted(["layers.10.q", "layers.9.q", "layers.9.k"], key=natural_key)
    ['layers.9.k', 'layers.9.q', 'layers.10.q']
    """
    pieces: list[tuple[int, int, str]] = []
    for place, piece in enumerate(_DIGITS.split(name)):  # by turns what is none, which may be empty, and a number
        if place % 2:
            digits = piece.lstrip("0")
            pieces.append((0, len(digits), digits))  # longer is larger: no int() of a hostile name's thousand digits
        elif piece:
            pieces.append((1, 0, piece))
    return (*pieces, (-1, 0, name))  # "7" and "07" differ in the last place


def layer_index(name: str) -> int | None:
    """The first numeric path component, or None.

    >>> layer_index("model.layers.12.mlp.experts.3.up_proj"), layer_index("lm_head")
    (12, None)
    """
    found = _NUMBER.search(name)
    return int(found.group()) if found else None


def expert_index(name: str) -> int | None:
    """The index of an expert in a name, where :func:`merged_experts_type` writes ``*``, or None.

    >>> expert_index("model.layers.12.mlp.experts.3.up_proj"), expert_index("model.layers.12.mlp.up_proj")
    (3, None)
    """
    found = _EXPERT.search(name)
    return int(found.group()) if found else None


def is_fused_experts(name: str) -> bool:
    """Say whether a 3-D tensor of this name holds one matrix per expert.

    >>> is_fused_experts("model.layers.0.mlp.experts.gate_up_proj")
    True
    >>> is_fused_experts("model.layers.0.block_sparse_moe.input_linear.weight")
    True
    >>> is_fused_experts("vision.patch_embed.proj.weight")
    False
    """
    return any("expert" in part or part.endswith("moe") for part in name.split("."))


def expert_name(parameter: str, expert: int) -> str:
    """Module name of one expert of a fused parameter, as an unfused checkpoint would write it.

    The index follows the last component that ends in ``experts``; where there is none, ``experts.<index>`` is put
    before the last component. So the types and groupings of unfused experts hold for fused ones.

    >>> expert_name("model.layers.0.mlp.experts.gate_up_proj", 17)
    'model.layers.0.mlp.experts.17.gate_up_proj'
    >>> expert_name("model.layers.0.block_sparse_moe.input_linear.weight", 3)
    'model.layers.0.block_sparse_moe.experts.3.input_linear'
    """
    parts = module_name(parameter).split(".")
    places = [place for place, part in enumerate(parts[:-1]) if part.endswith("experts")]
    if places:
        parts.insert(places[-1] + 1, str(expert))
    else:
        parts[-1:-1] = ["experts", str(expert)]
    return ".".join(parts)


def role(name: str) -> Role:
    """Say whether a module or parameter is a lookup table, the output head, or something else.

    Tables of positions and of token types count as embeddings: their rows are picked by an index as well. Tables of a
    vision or audio tower do not: they are no part of the language model, whose tables are trained whatever their score.

    >>> [role(n) for n in ("model.language_model.embed_tokens.weight", "transformer.wte", "gpt_neox.embed_in")]
    ['embedding', 'embedding', 'embedding']
    >>> [role(n) for n in ("lm_head.weight", "embed_out", "output.weight", "model.layers.0.mlp.down_proj")]
    ['head', 'head', 'head', 'other']
    >>> role("encoder.layer.0.output"), role("model.vision_tower.embeddings.position_embedding.weight")
    ('other', 'other')
    """
    module = module_name(name)
    found = _role_in_text(module)
    if found == "other" or all(tower_word(part) in ("", LANGUAGE_MODEL) for part in path_before_layer(module)):
        return found
    return "other"


def _role_in_text(module: str) -> Role:
    """Of a module of the language model."""
    last = module.rpartition(".")[2]
    if last in _EMBEDDINGS:
        return "embedding"
    if last in _HEADS or module.endswith("shared_head.head"):
        return "head"
    if layer_index(module) is not None:
        return "other"
    bare = module
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    if module in _TOP_HEADS or bare in _TOP_HEADS:
        return "head"
    return "embedding" if module in _TOP_EMBEDDINGS or bare in _TOP_EMBEDDINGS else "other"


def is_buffer(name: str) -> bool:
    """Say whether the name is one of the constants that models save beside their weights; there is nothing to score.

    >>> is_buffer("embeddings.position_ids"), is_buffer("model.layers.0.self_attn.q_proj.weight")
    (True, False)
    """
    return name.rpartition(".")[2] in _BUFFERS


def is_no_matrix(name: str) -> bool:
    """Say whether a parameter of two extents is a table of rates or biases: there are no singular values to ask for.

    >>> is_no_matrix("backbone.layers.0.mixer.A_log"), is_no_matrix("backbone.layers.0.mixer.in_proj.weight")
    (True, False)
    >>> is_no_matrix("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    True
    """
    return module_name(name).rpartition(".")[2] in _TABLES
