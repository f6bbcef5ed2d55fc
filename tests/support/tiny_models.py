"""Tiny language models of three families with random weights, a tokenizer and data, all written to a folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "qwen-moe", "gpt-neox")
_WORDS = ("the", "a", "cat", "dog", "sees", "likes", "old", "small", "house", "tree", "runs", "and", "in", "on", "red")


def write_tokenizer(folder: Path) -> int:
    """A word tokenizer with an end token; gives the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(("<unk>", "<eos>", "<pad>", *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def make_model(family: str, vocabulary: int = 32, *, layers: int = 4, seed: int = 0, **config: Any) -> Any:
    """A model of the family, some ten thousand parameters, float32."""
    import torch
    import transformers

    torch.manual_seed(seed)
    shape = {"vocab_size": vocabulary, "num_hidden_layers": layers, "max_position_embeddings": 64} | config
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 2}
    if family == "llama":
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, **shape, **ids
            )
        )
    if family == "qwen-moe":
        return transformers.Qwen2MoeForCausalLM(
            transformers.Qwen2MoeConfig(
                hidden_size=32,
                intermediate_size=48,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=32,
                num_attention_heads=4,
                num_key_value_heads=2,
                num_experts=4,
                num_experts_per_tok=2,
                **shape,
                **ids,
            )
        )
    if family == "gpt-neox":
        return transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4, **shape, **ids)
        )
    raise ValueError(family)


def write_model(folder: Path, family: str, **config: Any) -> Path:
    """The model with its tokenizer, as a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    make_model(family, vocabulary + (-vocabulary) % 8, **config).save_pretrained(folder)
    return folder


def write_data(path: Path, rows: int = 64, *, words: int = 15, seed: int = 0) -> Path:
    """Rows of text of equal length, so that every process counts the same tokens."""
    draw = random.Random(seed)
    lines = [json.dumps({"text": " ".join(draw.choices(_WORDS, k=words))}) for _ in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
