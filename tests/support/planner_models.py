"""Tiny models of transformers, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers", reason="needs the training libraries")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 256,
    "max_position_embeddings": 256,
    "attn_implementation": "sdpa",
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 16}

EXPERTS: dict[str, dict[str, Any]] = {
    "Qwen2Moe": {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    },
    "Mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 96},
}


def make_model(kind: str, **changes: Any) -> Any:
    """A tiny model with random weights, in float32."""
    import torch

    torch.manual_seed(0)
    sizes = {**(SIZES if kind == "GPTNeoX" else GROUPED), **changes}
    if kind in EXPERTS:
        sizes |= EXPERTS[kind]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def save_model(model: Any, folder: Path) -> Path:
    """Its checkpoint, as a user would have it."""
    model.save_pretrained(folder)
    return folder
