"""A live model scans as its checkpoint does, and nothing of it changes."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.scanning.live import plan_live, score_live
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.scorers import Together

from support.processes import script

transformers = pytest.importorskip("transformers")

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
MOE = SHAPE | {"num_key_value_heads": 2}


def make(kind: str, seed: int = 0, **more):
    torch.manual_seed(seed)
    if kind == "llama":
        config = transformers.LlamaConfig(**MOE, **more)
    elif kind == "mixtral":
        config = transformers.MixtralConfig(**MOE, num_local_experts=3, **more)
    elif kind == "qwen2-moe":
        config = transformers.Qwen2MoeConfig(
            **MOE, num_experts=3, moe_intermediate_size=24, shared_expert_intermediate_size=24, **more
        )
    elif kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16, **more)
    else:
        config = transformers.GPTNeoXConfig(**SHAPE, **more)
    return transformers.AutoModelForCausalLM.from_config(config)


def saved(model: torch.nn.Module, folder: Path) -> Scan:
    """The scan of the model's state under its runtime names; what is tied is stored once."""
    state = {name: value.detach().clone() for name, value in model.named_parameters()}
    save_file(state, folder / "model.safetensors")
    return sf.scan(folder)


def assert_same_scores(live: Scan, stored: Scan) -> None:
    assert live.failures == ()
    assert [module.name for module in live.modules] == [module.name for module in stored.modules]
    for module in live.modules:
        assert module == stored.module(module.name)


def state_of(model: torch.nn.Module) -> dict[str, tuple]:
    return {
        name: (value.data_ptr(), value.requires_grad, value.grad is None, value.device, value.detach().clone())
        for name, value in model.named_parameters()
    }


def assert_unchanged(model: torch.nn.Module, before: dict[str, tuple]) -> None:
    for name, value in model.named_parameters():
        *facts, values = before[name]
        assert [value.data_ptr(), value.requires_grad, value.grad is None, value.device] == facts, name
        assert torch.equal(value, values), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen2-moe", "gpt-neox", "gpt2"])
def test_a_live_model_scans_as_its_checkpoint(kind, dtype, tmp_path):
    model = make(kind).to(dtype)
    model.get_input_embeddings().weight.requires_grad_(False)
    before = state_of(model)
    live = sf.scan(model)
    assert_unchanged(model, before)
    assert_same_scores(live, saved(model, tmp_path))
    assert live.provenance["checkpoint"] == f"live model {type(model).__name__}"
    assert {entry.reason for entry in live.skipped} == {"1-D (norm or bias)"}


@pytest.mark.usefixtures("one_thread")
def test_batches_of_a_live_model_are_its_weights_and_not_what_they_become():
    """As on a GPU: experts wait for each other, and training goes on meanwhile."""
    model, options = make("mixtral"), ScanOptions(device="cpu")
    expected = sf.scan(model)
    live, plan = plan_live(model, options)
    found = {}

    def deliver(result: ModuleResult) -> None:
        found[result.record.name] = result.record
        for parameter in model.parameters():
            parameter.data.add_(1.0)

    together = Together(options)
    score_live(live, plan, together, "cpu", deliver)
    assert found == {module.name: module for module in expected.modules}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_live_model_is_scored_on_the_device_that_is_asked_for(where):
    model = make("mixtral").to(where)
    before = state_of(model)
    expected, found = sf.scan(model, device="cpu"), sf.scan(model, device="cuda")
    assert_unchanged(model, before)
    assert found.provenance["device"].startswith("cuda")
    for module in found.modules:
        other = expected.module(module.name)
        bounds = (module.error_bound or 0.0) + (other.error_bound or 0.0)
        assert module.rank_value == pytest.approx(other.rank_value, rel=bounds), module.name


def test_a_dense_model_scans_as_what_save_pretrained_writes(tmp_path):
    model = make("llama")
    model.save_pretrained(tmp_path)
    assert_same_scores(sf.scan(model), sf.scan(tmp_path))


def test_experts_are_parts_of_their_parameter():
    live = sf.scan(make("mixtral"))
    expert = live.module("model.layers.1.mlp.experts.2.gate_up_proj")
    assert (expert.parameter, expert.parts) == ("model.layers.1.mlp.experts.gate_up_proj", 3)
    assert expert.parameter_shape == (3, 96, 32)
    assert "model.layers.0.mlp.experts.down_proj" in live.select(100).names


@pytest.mark.parametrize(("kind", "fused"), [("gpt-neox", "attention.query_key_value"), ("gpt2", "attn.c_attn")])
def test_fused_projections_split_and_compete_whole_or_in_parts(kind, fused, tmp_path):
    model = make(kind)
    model.save_pretrained(tmp_path, save_original_format=False)
    live, stored = sf.scan(model, split_fused=True), sf.scan(tmp_path, split_fused=True)
    assert [module.snr for module in live.modules] == [module.snr for module in stored.modules]
    weight = dict(model.named_parameters())[next(m.parameter for m in live.modules if m.type == f"{fused}.k")].detach()
    own = weight[:, 32:64] if kind == "gpt2" else weight.view(4, 3, 8, 32)[:, 1].reshape(32, 32)
    part = next(module for module in live.modules if module.type == f"{fused}.k")
    assert part.snr == sf.spectrum(own.contiguous()).snr
    assert (part.shape, part.parts, part.parameter_shape) == ((32, 32), 3, tuple(weight.shape))
    assert {name for name in stored.select(100).names if "qkv" in name or fused in name} == {
        module.parameter.removesuffix(".weight") for module in stored.modules if module.parts == 3
    }
    chosen = live.select(100, include=[f"*.{fused}.v"], always="none", fused="parts")
    assert len(chosen.modules) == 2
    chosen.apply(model, partial="whole")
    free = {name for name, value in model.named_parameters() if value.requires_grad}
    assert free == {module.parameter for module in chosen.modules}


def test_a_fused_projection_of_an_unknown_family_is_a_failure_by_name(tmp_path):
    save_file(
        {"l.0.qkv_proj.weight": torch.randn(24, 8), "l.0.o.weight": torch.randn(8, 8)}, tmp_path / "m.safetensors"
    )
    assert sf.scan(tmp_path).complete
    (failure,) = sf.scan(tmp_path, split_fused=True).failures
    assert failure.name == "l.0.qkv_proj"
    assert "expected a model_type in config.json, found none" in failure.message


def test_tied_parameters_are_scored_once():
    model = make("llama", tie_word_embeddings=True)
    live = sf.scan(model)
    assert live.ties == {"lm_head": "model.embed_tokens"}
    assert "lm_head" not in {module.name for module in live.modules}
    assert live.select(25).always == ("model.embed_tokens", "lm_head")


def test_wrappers_leave_no_trace_in_the_names():
    model = make("llama")
    wrapped = torch.nn.Module()
    wrapped.module = torch.compile(model)
    assert [m.name for m in sf.scan(wrapped).modules] == [m.name for m in sf.scan(model).modules]


def test_patterns_options_and_progress():
    model = make("llama")
    steps = []
    live = sf.scan(
        model,
        include=["*.q_proj", "*norm*"],
        exclude=["*.1.*"],
        include_norms=True,
        criterion="mp",
        method="svd",
        threads=1,
        progress=steps.append,
    )
    assert [module.name for module in live.modules] == [
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
        "model.layers.0.self_attn.q_proj",
        "model.norm",
    ]
    assert {module.method for module in live.modules} == {"svd-float64"}
    assert (steps[0].name, steps[-1].done, steps[-1].done_bytes) == ("", 4, steps[-1].total_bytes)
    with pytest.raises(SelectionError, match=r"'\*.q_prj' matches no module"):
        sf.scan(model, include=["*.q_prj"])
    with pytest.raises(UsageError, match="expected a weight matrix to score, found none"):
        sf.scan(torch.nn.LayerNorm(4))


def test_a_live_scan_is_saved_and_keeps_no_journal(tmp_path):
    model = make("llama")
    live = sf.scan(model, out=tmp_path / "scan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.json"]
    assert sf.load_scan(tmp_path / "scan.json").modules == live.modules
    with pytest.raises(UsageError, match="journal: expected none for a live model"):
        sf.scan(model, journal=tmp_path / "scan.journal")


def test_inside_a_training_run_the_losses_stay_the_same():
    """Between steps, within autocast and with gradients held: the run ends with the same bits as one without scans."""

    def train(scan: bool) -> tuple[list[float], torch.Tensor]:
        model = make("llama")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        tokens = torch.randint(0, 64, (2, 8), generator=torch.Generator().manual_seed(0))
        losses = []
        for _ in range(3):
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            if scan:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    inside = sf.scan(model)
                assert_same_modules(inside, sf.scan(copy.deepcopy(model)))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            torch.rand(1)
        return losses, torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    def assert_same_modules(a: Scan, b: Scan) -> None:
        assert a.modules == b.modules

    torch.manual_seed(3)
    plain = train(scan=False)
    torch.manual_seed(3)
    scanned = train(scan=True)
    assert plain[0] == scanned[0]
    assert torch.equal(plain[1], scanned[1])


def test_nothing_is_left_behind():
    model = make("mixtral")
    sf.scan(model)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    before = tensors()
    sf.scan(model)
    assert tensors() == before


def test_a_nan_is_a_failure_and_names_the_parameter():
    model = make("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    (failure,) = sf.scan(model).failures
    assert (failure.name, failure.kind) == ("model.layers.1.mlp.up_proj", "values")
    assert "model.layers.1.mlp.up_proj.weight in live: holds NaN" in failure.message


def test_offloaded_parameters_are_failures():
    model = make("llama")
    model.model.layers[0].mlp.up_proj.to("meta")
    (failure,) = sf.scan(model).failures
    assert failure.name == "model.layers.0.mlp.up_proj"
    assert "found the meta device (offloaded)" in failure.message


@pytest.mark.parametrize("repacked", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_4bit_layers(kind, double, repacked):
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(128, 96, bias=False, quant_type=kind, compress_statistics=double)
    layer.weight.data = torch.randn(96, 128)
    model = torch.nn.Sequential(layer.to("cpu"))
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    expected = sf.spectrum(weight)
    if repacked:
        with torch.no_grad():
            model.eval()(torch.randn(2, 128))
        if not getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
            pytest.skip("bitsandbytes repacks codes only on a CPU with AVX512-BF16")
        packed = layer.weight.data.clone()
    (module,) = sf.scan(model).modules
    assert (module.name, module.shape) == ("0", (96, 128))
    assert kind.upper() in module.note
    # Repacking rounds the scales to bfloat16.
    assert module.snr == pytest.approx(expected.snr, rel=2e-2 if repacked else 1e-5)
    assert module.s_max == pytest.approx(expected.s_max, rel=4e-3 if repacked else 1e-5)
    if repacked:
        assert layer.weight.quant_state.packing_format_for_cpu
        assert torch.equal(layer.weight.data, packed)


@pytest.mark.parametrize("used", [False, True])
def test_bitsandbytes_int8_layers(used):
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    layer = bnb.nn.Linear8bitLt(64, 96, bias=False, has_fp16_weights=False)
    layer.weight.data = weight.clone()
    layer = layer.to("cpu")
    if used:
        layer(torch.randn(2, 64))
    (module,) = sf.scan(torch.nn.Sequential(layer)).modules
    codes, maxima, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    decoded = codes.float() * (maxima.float()[:, None] / 127)
    assert module.snr == pytest.approx(sf.spectrum(decoded).snr, rel=1e-4)


def test_a_model_with_adapters_scans_as_its_base():
    peft = pytest.importorskip("peft")
    model = make("llama")
    expected = sf.scan(model)
    config = peft.LoraConfig(target_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"], r=2)
    adapted = peft.get_peft_model(model, config)
    live = sf.scan(adapted)
    assert live.modules == expected.modules
    reasons = {entry.reason for entry in live.skipped if "lora_A" in entry.name or "original_module" in entry.name}
    assert reasons == {"belongs to an adapter (PEFT)"}


@pytest.mark.slow
def test_shards_of_fsdp2_are_gathered_and_shared_out():
    assert_same_on_two_ranks("live_scan_of_shards")


@pytest.mark.slow
def test_partitions_of_zero_3_are_gathered_and_shared_out():
    """Two real DeepSpeed processes; training goes on between the scans."""
    pytest.importorskip("deepspeed")
    assert_same_on_two_ranks("live_scan_of_partitions")


def assert_same_on_two_ranks(name: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", script(name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("same") == 2
