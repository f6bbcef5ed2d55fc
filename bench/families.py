"""Parameter names, shapes and configs of the model families that the checkpoint generator imitates.

Numbers come from the ``config.json`` each family publishes: Llama 3 (8B, 70B), Qwen2-7B, Mixtral-8x7B-v0.1,
DeepSeek-V3 (``deepseek-v3-mini`` divides its sizes by four and keeps 16 experts) and all-MiniLM-L6-v2 (a BERT).
``tiny`` is a Llama with tied embeddings, small enough for a unit test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectrum_fast.errors import UsageError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """Sizes of one architecture; field names follow the Hugging Face configs."""

    model_type: str
    architecture: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    layers: int
    tied: bool = False
    dtype: str = "bf16"
    experts: int = 0
    experts_per_token: int = 2
    moe_intermediate: int = 0
    dense_layers: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    rope_dim: int = 0
    positions: int = 8192

    def divided(self, scale: int) -> Family:
        """The same architecture with every width divided by ``scale`` (at least 1; counts of heads stay)."""

        def smaller(size: int) -> int:
            return max(1, size // scale) if size else 0

        values = dict(self.__dict__)
        widths = ("hidden", "intermediate", "head_dim", "vocab", "moe_intermediate", "q_lora", "kv_lora", "rope_dim")
        for width in widths:
            values[width] = smaller(values[width])
        return Family(**values)


FAMILIES: dict[str, Family] = {
    "llama-3-8b": Family("llama", "LlamaForCausalLM", 4096, 14336, 32, 8, 128, 128256, 32),
    "llama-3.1-70b": Family("llama", "LlamaForCausalLM", 8192, 28672, 64, 8, 128, 128256, 80, positions=131072),
    "qwen2-7b": Family("qwen2", "Qwen2ForCausalLM", 3584, 18944, 28, 4, 128, 152064, 28, positions=32768),
    "mixtral-8x7b": Family(
        "mixtral", "MixtralForCausalLM", 4096, 14336, 32, 8, 128, 32000, 32, experts=8, positions=32768
    ),
    "deepseek-v3-mini": Family(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        hidden=1792,
        intermediate=4608,
        heads=32,
        kv_heads=32,
        head_dim=128,
        vocab=32320,
        layers=4,
        experts=16,
        experts_per_token=4,
        moe_intermediate=512,
        dense_layers=1,
        q_lora=384,
        kv_lora=128,
        rope_dim=64,
    ),
    "minilm": Family("bert", "BertModel", 384, 1536, 12, 12, 32, 30522, 6, tied=True, dtype="f32", positions=512),
    "tiny": Family("llama", "LlamaForCausalLM", 64, 176, 4, 2, 16, 256, 2, tied=True, positions=128),
}
"""Name on the command line -> sizes. ``dtype`` is the type the family publishes in."""


def resolve_family(like: str, layers: int | None = None, scale: int = 1) -> tuple[Family, int]:
    """Look a family up and check the number of layers and the divisor.

    Args:
        like: a key of :data:`FAMILIES`.
        layers: number of layers, None for the family's own.
        scale: positive divisor of every width.

    Raises:
        UsageError: unknown family, no layers, or a divisor below 1.
    """
    if like not in FAMILIES:
        raise UsageError(f"unknown model family {like!r}: expected one of {', '.join(FAMILIES)}")
    if scale < 1:
        raise UsageError(f"scale divides every width and must be at least 1, found {scale}")
    family = FAMILIES[like].divided(scale)
    count = family.layers if layers is None else layers
    if count < 1:
        raise UsageError(f"a checkpoint needs at least one layer, found layers={count}")
    return family, count


def model_shapes(like: str, layers: int | None = None, scale: int = 1, *, embeddings: bool = True) -> Shapes:
    """Parameter names and shapes of a model, in the order in which they are written.

    Args:
        like: a key of :data:`FAMILIES`.
        layers: number of layers, None for the family's own.
        scale: divisor of every width.
        embeddings: False leaves out the embeddings and ``lm_head`` (they are the largest matrices of a small cut).

    Returns:
        Name -> shape; a tied ``lm_head`` is absent, as in the published checkpoints.

    Raises:
        UsageError: unknown family, no layers, or a divisor below 1.
    """
    family, count = resolve_family(like, layers, scale)
    build = _BERT if family.model_type == "bert" else _DECODER
    return build(family, count, embeddings)


def model_config(like: str, layers: int | None = None, scale: int = 1, dtype: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a generated model: the fields that say its shape."""
    family, count = resolve_family(like, layers, scale)
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "hidden_size": family.hidden,
        "intermediate_size": family.intermediate,
        "num_attention_heads": family.heads,
        "num_hidden_layers": count,
        "vocab_size": family.vocab,
        "max_position_embeddings": family.positions,
        "tie_word_embeddings": family.tied,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype or family.dtype],
    }
    if family.model_type == "bert":
        return {**config, "type_vocab_size": 2, "hidden_act": "gelu"}
    config |= {"num_key_value_heads": family.kv_heads, "head_dim": family.head_dim, "hidden_act": "silu"}
    if family.model_type == "mixtral":
        config |= {"num_local_experts": family.experts, "num_experts_per_tok": family.experts_per_token}
    if family.model_type == "deepseek_v3":
        config |= {
            "n_routed_experts": family.experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": family.experts_per_token,
            "moe_intermediate_size": family.moe_intermediate,
            "first_k_dense_replace": family.dense_layers,
            "q_lora_rank": family.q_lora,
            "kv_lora_rank": family.kv_lora,
            "qk_nope_head_dim": family.head_dim,
            "qk_rope_head_dim": family.rope_dim,
            "v_head_dim": family.head_dim,
        }
        config["head_dim"] = family.rope_dim
    return config


def _decoder_shapes(family: Family, layers: int, embeddings: bool) -> Shapes:
    shapes: Shapes = {}
    if embeddings:
        shapes["model.embed_tokens.weight"] = (family.vocab, family.hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (family.hidden,)
        attention = _latent_attention if family.kv_lora else _grouped_attention
        shapes |= {f"{prefix}self_attn.{name}": shape for name, shape in attention(family).items()}
        shapes[prefix + "post_attention_layernorm.weight"] = (family.hidden,)
        shapes |= {prefix + name: shape for name, shape in _feed_forward(family, layer).items()}
    shapes["model.norm.weight"] = (family.hidden,)
    if embeddings and not family.tied:
        shapes["lm_head.weight"] = (family.vocab, family.hidden)
    return shapes


def _grouped_attention(family: Family) -> Shapes:
    queries, keys = family.heads * family.head_dim, family.kv_heads * family.head_dim
    shapes: Shapes = {}
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        shapes[f"{name}.weight"] = (rows, family.hidden)
        if family.model_type == "qwen2":
            shapes[f"{name}.bias"] = (rows,)
    shapes["o_proj.weight"] = (family.hidden, queries)
    return shapes


def _latent_attention(family: Family) -> Shapes:
    return {
        "q_a_proj.weight": (family.q_lora, family.hidden),
        "q_a_layernorm.weight": (family.q_lora,),
        "q_b_proj.weight": (family.heads * (family.head_dim + family.rope_dim), family.q_lora),
        "kv_a_proj_with_mqa.weight": (family.kv_lora + family.rope_dim, family.hidden),
        "kv_a_layernorm.weight": (family.kv_lora,),
        "kv_b_proj.weight": (family.heads * 2 * family.head_dim, family.kv_lora),
        "o_proj.weight": (family.hidden, family.heads * family.head_dim),
    }


def _feed_forward(family: Family, layer: int) -> Shapes:
    shapes: Shapes = {}
    if family.model_type == "mixtral":
        shapes["block_sparse_moe.gate.weight"] = (family.experts, family.hidden)
        for expert in range(family.experts):
            prefix = f"block_sparse_moe.experts.{expert}."
            shapes[prefix + "w1.weight"] = (family.intermediate, family.hidden)
            shapes[prefix + "w2.weight"] = (family.hidden, family.intermediate)
            shapes[prefix + "w3.weight"] = (family.intermediate, family.hidden)
        return shapes
    if not family.experts or layer < family.dense_layers:
        return _gated("mlp.", family.hidden, family.intermediate)
    shapes["mlp.gate.weight"] = (family.experts, family.hidden)
    shapes["mlp.gate.e_score_correction_bias"] = (family.experts,)
    for expert in range(family.experts):
        shapes |= _gated(f"mlp.experts.{expert}.", family.hidden, family.moe_intermediate)
    return shapes | _gated("mlp.shared_experts.", family.hidden, family.moe_intermediate)


def _gated(prefix: str, hidden: int, intermediate: int) -> Shapes:
    return {
        prefix + "gate_proj.weight": (intermediate, hidden),
        prefix + "up_proj.weight": (intermediate, hidden),
        prefix + "down_proj.weight": (hidden, intermediate),
    }


def _bert_shapes(family: Family, layers: int, embeddings: bool) -> Shapes:
    hidden, inner = family.hidden, family.intermediate
    shapes: Shapes = {}
    if embeddings:
        shapes["embeddings.word_embeddings.weight"] = (family.vocab, hidden)
        shapes["embeddings.position_embeddings.weight"] = (family.positions, hidden)
        shapes["embeddings.token_type_embeddings.weight"] = (2, hidden)
        shapes |= _affine("embeddings.LayerNorm", hidden)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            shapes |= _affine(f"{prefix}attention.self.{name}", hidden, hidden)
        shapes |= _affine(prefix + "attention.output.dense", hidden, hidden)
        shapes |= _affine(prefix + "attention.output.LayerNorm", hidden)
        shapes |= _affine(prefix + "intermediate.dense", inner, hidden)
        shapes |= _affine(prefix + "output.dense", hidden, inner)
        shapes |= _affine(prefix + "output.LayerNorm", hidden)
    return shapes | _affine("pooler.dense", hidden, hidden)


def _affine(prefix: str, *shape: int) -> Shapes:
    return {prefix + ".weight": shape, prefix + ".bias": shape[:1]}


_BERT: Callable[[Family, int, bool], Shapes] = _bert_shapes
_DECODER: Callable[[Family, int, bool], Shapes] = _decoder_shapes
