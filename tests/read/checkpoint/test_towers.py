"""Which tower a module belongs to, held to the sub-modules of tiny real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from spectrum_fast.read.checkpoint.towers import LANGUAGE_MODEL, find_towers

TEXT = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
VISION = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2]}
HALVES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 100}

MODELS: dict[str, tuple[Callable[[Any], Any], dict[str, str]]] = {
    "Qwen2.5-VL": (
        lambda t: t.Qwen2_5_VLForConditionalGeneration(
            t.Qwen2_5_VLConfig(text_config={**TEXT, "rope_scaling": ROPE}, vision_config=QWEN_VISION)
        ),
        {"model.visual": "vision"},
    ),
    "Qwen3-VL": (
        lambda t: t.Qwen3VLForConditionalGeneration(
            t.Qwen3VLConfig(
                text_config={**TEXT, "head_dim": 8, "rope_scaling": ROPE},
                vision_config={**QWEN_VISION, "deepstack_visual_indexes": [0]},
            )
        ),
        {"model.visual": "vision"},
    ),
    "LLaVA": (
        lambda t: t.LlavaForConditionalGeneration(
            t.LlavaConfig(vision_config=t.CLIPVisionConfig(**VISION), text_config=t.LlamaConfig(**TEXT))
        ),
        {"model.vision_tower": "vision", "model.multi_modal_projector": "projector"},
    ),
    "Gemma-3": (
        lambda t: t.Gemma3ForConditionalGeneration(
            t.Gemma3Config(text_config={**TEXT, "head_dim": 8}, vision_config=VISION, mm_tokens_per_image=4)
        ),
        {"model.vision_tower": "vision", "model.multi_modal_projector": "projector"},
    ),
    "Qwen2-Audio": (
        lambda t: t.Qwen2AudioForConditionalGeneration(
            t.Qwen2AudioConfig(
                audio_config={
                    "d_model": 32,
                    "encoder_layers": 2,
                    "encoder_attention_heads": 4,
                    "encoder_ffn_dim": 48,
                },
                text_config={**TEXT, "model_type": "qwen2"},
            )
        ),
        {"model.audio_tower": "audio", "model.multi_modal_projector": "projector"},
    ),
    "T5": (
        lambda t: t.T5ForConditionalGeneration(
            t.T5Config(d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=100)
        ),
        {"encoder": "encoder", "decoder": "decoder"},
    ),
    "BART": (
        lambda t: t.BartForConditionalGeneration(t.BartConfig(**HALVES, **HEADS)),
        {"model.encoder": "encoder", "model.decoder": "decoder"},
    ),
    "CLIP": (
        lambda t: t.CLIPModel(t.CLIPConfig(text_config={**TEXT}, vision_config=VISION)),
        {"vision_model": "vision", "visual_projection": "vision"},
    ),
    "Mamba": (lambda t: t.MambaForCausalLM(t.MambaConfig(num_hidden_layers=2, hidden_size=32, vocab_size=100)), {}),
    "Llama": (lambda t: t.LlamaForCausalLM(t.LlamaConfig(**TEXT)), {}),
    "BERT": (
        lambda t: t.BertForMaskedLM(
            t.BertConfig(**{key: value for key, value in TEXT.items() if key != "num_key_value_heads"})
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_towers_are_the_sub_modules_of_the_model(name: str) -> None:
    """From the configuration and, the same, from names alone."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    build, towers = MODELS[name]
    with torch.device("meta"):
        model = build(transformers)
    expected = {
        parameter: next((tower for path, tower in towers.items() if parameter.startswith(f"{path}.")), LANGUAGE_MODEL)
        for parameter, _ in model.named_parameters()
    }
    assert set(expected.values()) == {LANGUAGE_MODEL, *towers.values()}
    assert find_towers(expected, json.loads(model.config.to_json_string())) == expected
    assert find_towers(expected) == expected


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("vision_tower.vision_model.encoder.layers.3.self_attn.q_proj", "vision"),
        ("language_model.model.layers.3.self_attn.q_proj", LANGUAGE_MODEL),
        ("model.mm_projector.0", "projector"),
        ("visual.merger.mlp.0", "vision"),
        ("thinker.audio_tower.layers.0.fc1", "audio"),
        ("thinker.model.layers.0.mlp.up_proj", LANGUAGE_MODEL),
        ("model.embed_tokens_extend.image_embed.img_processor.encoder.layers.0.mlp.fc1", "vision"),
        ("model.layers.4.vision_expert.up_proj", LANGUAGE_MODEL),  # inside a layer of the language model
        ("lm_head", LANGUAGE_MODEL),
        ("layers.3", LANGUAGE_MODEL),
        ("", LANGUAGE_MODEL),
    ],
)
def test_names_as_checkpoints_have_them(name: str, tower: str) -> None:
    assert find_towers([name]) == {name: tower}


def test_the_configuration_names_towers_that_no_word_does() -> None:
    names = ["talker.model.layers.0.mlp.up_proj", "depth_decoder.layers.0.q", "qformer_block.0.q", "model.layers.0.q"]
    config = {"talker_config": {}, "depth_decoder_config": {}, "qformer_config": {}, "quantization_config": {}}
    assert list(find_towers(names, config).values()) == ["talker", "depth-decoder", "qformer", LANGUAGE_MODEL]
    assert set(find_towers(names).values()) == {LANGUAGE_MODEL}
    nested = {"a_config": {"b_config": {"c_config": {"talker_config": {}}}}}
    for _ in range(500):
        nested = {"deep_config": nested}
    assert set(find_towers(names, nested).values()) == {LANGUAGE_MODEL}  # and no end of the stack
    for odd in (None, [], "x", {"vision_config": None}, {"": {"model_type": 1}}):
        assert set(find_towers(names[3:], odd).values()) == {LANGUAGE_MODEL}


def test_an_encoder_alone_is_no_tower() -> None:
    both = ["encoder.layer.0.q", "decoder.layer.0.q"]
    assert list(find_towers(both).values()) == ["encoder", "decoder"]
    assert list(find_towers(both, {"is_encoder_decoder": True}).values()) == ["encoder", "decoder"]
    assert set(find_towers(both, {"is_encoder_decoder": False}).values()) == {LANGUAGE_MODEL}
    assert set(find_towers(["encoder.layer.0.q", "decoder.dense"]).values()) == {LANGUAGE_MODEL}
