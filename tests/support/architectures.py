"""Tiny models of the architectures that people select modules of, as transformers builds and saves them."""

from __future__ import annotations

from typing import Any

ARCHITECTURES = ("llama", "qwen3", "mixtral", "qwen3-moe", "gpt-oss", "gemma-3", "qwen2.5-vl", "llava")

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def build(name: str) -> Any:
    """The model of an architecture, some ten thousand float32 parameters, no two alike."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    if name == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**_TEXT))
    elif name == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**_TEXT, head_dim=8, tie_word_embeddings=True))
    elif name == "mixtral":
        model = t.MixtralForCausalLM(t.MixtralConfig(**_TEXT, num_local_experts=4))
    elif name == "qwen3-moe":
        config = t.Qwen3MoeConfig(**_TEXT, num_experts=4, moe_intermediate_size=24, head_dim=8, mlp_only_layers=[0])
        model = t.Qwen3MoeForCausalLM(config)
    elif name == "gpt-oss":
        model = t.GptOssForCausalLM(t.GptOssConfig(**_TEXT, num_local_experts=4, head_dim=8))
    elif name == "gemma-3":
        text = {**_TEXT, "head_dim": 8}
        config = t.Gemma3Config(text_config=text, vision_config=_VISION, mm_tokens_per_image=4)
        model = t.Gemma3ForConditionalGeneration(config)
    elif name == "qwen2.5-vl":
        rope = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
        config = t.Qwen2_5_VLConfig(text_config={**_TEXT, "rope_scaling": rope}, vision_config=vision)
        model = t.Qwen2_5_VLForConditionalGeneration(config)
    elif name == "llava":
        vision = t.CLIPVisionConfig(**_VISION)
        config = t.LlavaConfig(vision_config=vision, text_config=t.LlamaConfig(**_TEXT), image_token_index=99)
        model = t.LlavaForConditionalGeneration(config)
    else:
        raise ValueError(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model
