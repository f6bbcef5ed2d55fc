"""Parts of fused projections, held to what each family's own code in transformers computes from the fused weight."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.projections import _EXPERTS, split_fused, take_part
from spectrum_fast.read.formats.weight_plan import FusedPart, WeightPlan

transformers = pytest.importorskip("transformers")

BASE = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "pad_token_id": 0}
GROUPED = BASE | {"num_key_value_heads": 2, "intermediate_size": 20}
FALCON = BASE | {"alibi": False, "bias": False, "parallel_attn": True}
GPT2 = {"vocab_size": 32, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 8}
QKV = {
    "phi3": ("Phi3", GROUPED),
    "gpt_neox": ("GPTNeoX", BASE | {"intermediate_size": 20}),
    "bloom": ("Bloom", {"vocab_size": 32, "hidden_size": 32, "n_layer": 1, "n_head": 4}),
    "persimmon": ("Persimmon", BASE | {"intermediate_size": 20, "qk_layernorm": False}),
    "falcon, grouped": ("Falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, multi-query": ("Falcon", FALCON | {"new_decoder_architecture": False, "multi_query": True}),
    "falcon, head by head": ("Falcon", FALCON | {"new_decoder_architecture": False, "multi_query": False}),
    "mpt": ("Mpt", {"vocab_size": 32, "d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 8}),
    "dbrx": (
        "Dbrx",
        {
            "vocab_size": 32,
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 1,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 2, "moe_top_k": 1},
        },
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt_bigcode, multi-query": ("GPTBigCode", GPT2 | {"multi_query": True}),
    "gpt_bigcode, head by head": ("GPTBigCode", GPT2 | {"multi_query": False}),
}
NAMES = ("qkv_proj", "query_key_value", "Wqkv", "c_attn")


class Capture(torch.overrides.TorchFunctionMode):
    """Notes the arguments of attention products: ``scaled_dot_product_attention``, or q k^T and then (weights) v."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.sdpa: tuple[torch.Tensor, ...] | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention" and self.sdpa is None:
            named = kwargs or {}
            self.sdpa = args[:3] if len(args) >= 3 else (named["query"], named["key"], named["value"])
        if name in ("matmul", "__matmul__", "bmm", "baddbmm", "torch.baddbmm"):
            operands = args[1:3] if "baddbmm" in name and len(args) >= 3 else args[-2:]
            if "baddbmm" in name and kwargs:
                operands = (kwargs["batch1"], kwargs["batch2"])
            self.products.append(operands)
        return func(*args, **(kwargs or {}))


def plan_of(name: str, weight: torch.Tensor) -> WeightPlan:
    shape = tuple(weight.shape)
    ref = TensorRef(f"{name}.weight", Path("m.safetensors"), "F32", shape, 0, 4 * math.prod(shape))
    return WeightPlan(name, ref.name, ref)


def parts(name: str, weight: torch.Tensor, config: dict) -> dict[str, torch.Tensor]:
    plans = split_fused(plan_of(name, weight), config)
    assert all(plan.parameter == f"{name}.weight" and plan.parts == len(plans) for plan in plans)
    return {plan.name.rpartition(".")[2]: take_part(weight, plan.part) for plan in plans if plan.part}


@pytest.mark.parametrize("case", QKV)
def test_q_k_and_v_are_those_that_the_family_computes(case):
    """One token at position 0, where rotation is the identity: its q, k, v are the projections themselves."""
    family, shape = QKV[case]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**shape)
    config._attn_implementation = "sdpa" if family not in ("Mpt", "Bloom") else "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ((name, module),) = [(n, m) for n, m in model.named_modules() if n.rpartition(".")[2] in NAMES]
    weight = module.weight.detach()
    if getattr(module, "bias", None) is not None:
        torch.nn.init.zeros_(module.bias)
    seen = {}
    module.register_forward_hook(lambda _, args, out: seen.update(x=args[0].detach(), y=out.detach()))
    with torch.no_grad(), Capture() as capture:
        model(input_ids=torch.tensor([[3]]), use_cache=False)
    if capture.sdpa is not None:
        query, key, value = (tensor.reshape(-1) for tensor in capture.sdpa)
    else:
        width = 8
        (first,) = [p for p in capture.products if p[0].shape[-1] == width and p[1].shape[-2:] == (width, 1)]
        (second,) = [p for p in capture.products if p[0].shape[-2:] == (1, 1) and p[1].shape[-2:] == (1, width)]
        query, key, value = first[0].reshape(-1), first[1].reshape(-1), second[1].reshape(-1)
    found = parts(name, weight, config.to_dict())
    x = seen["x"].reshape(-1)
    assert sum(part.numel() for part in found.values()) == weight.numel()
    for part, expected in (("q", query), ("k", key), ("v", value)):
        projected = x @ found[part] if family == "GPT2" else found[part] @ x
        heads, own = expected.reshape(-1, 8), projected.reshape(-1, 8)
        shared = own.repeat_interleave(heads.shape[0] // own.shape[0], 0)  # heads of a group share k and v
        torch.testing.assert_close(shared, heads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["Phi3", "Glm", "Glm4"])
def test_gate_and_up_of_a_dense_layer(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**GROUPED, head_dim=8)
    model = transformers.AutoModelForCausalLM.from_config(config)
    ((name, module),) = [(n, m) for n, m in model.named_modules() if n.endswith(".mlp")]
    found = parts(f"{name}.gate_up_proj", module.gate_up_proj.weight.detach(), config.to_dict())
    x, seen = torch.randn(32), {}
    module.down_proj.register_forward_pre_hook(lambda _, args: seen.update(product=args[0].detach()))
    with torch.no_grad():
        module(x)
        product = (found["up"] @ x) * module.activation_fn(found["gate"] @ x)
    torch.testing.assert_close(seen["product"], product)


EXPERT_CLASSES = {
    "mixtral": ("mixtral", "MixtralExperts", {"num_local_experts": 2}),
    "qwen2_moe": ("qwen2_moe", "Qwen2MoeExperts", {"num_experts": 2, "moe_intermediate_size": 10}),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeExperts", {"num_experts": 2, "moe_intermediate_size": 10}),
    "olmoe": ("olmoe", "OlmoeExperts", {"num_experts": 2}),
    "deepseek_v2": ("deepseek_v2", "DeepseekV2Experts", {"n_routed_experts": 2, "moe_intermediate_size": 10}),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3NaiveMoe", {"n_routed_experts": 2, "moe_intermediate_size": 10}),
    "glm4_moe": ("glm4_moe", "Glm4MoeNaiveMoe", {"n_routed_experts": 2, "moe_intermediate_size": 10}),
    "phimoe": ("phimoe", "PhimoeExperts", {"num_local_experts": 2}),
    "dots1": ("dots1", "Dots1NaiveMoe", {"n_routed_experts": 2, "moe_intermediate_size": 10}),
    "gpt_oss": ("gpt_oss", "GptOssExperts", {"num_local_experts": 2}),
    "llama4": ("llama4", "Llama4TextExperts", {"num_local_experts": 2}),
}


def test_every_family_of_experts_is_held_to_its_own_code():
    assert set(_EXPERTS) <= set(EXPERT_CLASSES)


@pytest.mark.parametrize("family", EXPERT_CLASSES)
def test_gate_and_up_of_fused_experts(family):
    """The experts' output is the one made of our gate and up."""
    module_name, class_name, counts = EXPERT_CLASSES[family]
    modeling = __import__(f"transformers.models.{module_name}.modeling_{module_name}", fromlist=["x"])
    kind = next(
        getattr(modeling, n) for n in (class_name, class_name.replace("NaiveMoe", "Experts")) if hasattr(modeling, n)
    )
    config_name = next(
        n
        for n in dir(modeling)
        if n.endswith("TextConfig" if family == "llama4" else "Config")
        and n != "PreTrainedConfig"
        and family.replace("_", "") in n.lower().replace("_", "")
    )
    config = getattr(modeling, config_name)(**GROUPED, **counts)
    torch.manual_seed(0)
    experts = kind(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        for name, parameter in experts.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    fused = experts.gate_up_proj.detach()[0]
    ref = TensorRef("mlp.experts.gate_up_proj", Path("m"), "F32", tuple(fused.shape), 0, 4 * fused.numel())
    plan = WeightPlan("mlp.experts.0.gate_up_proj", ref.name, ref, expert=0, parts=2, whole_shape=(2, *fused.shape))
    plans = split_fused(plan, {"model_type": "llama4" if family == "llama4" else family})
    gate, up = (take_part(fused, part.part) for part in plans)
    assert [part.name for part in plans] == [f"{plan.name}.gate", f"{plan.name}.up"]
    assert plans[0].parts == 4
    columns = plans[0].part.axis == 1
    x = torch.randn(1, 32)
    gate, up = ((x @ part if columns else x @ part.T) for part in (gate, up))
    down = experts.down_proj.detach()[0]
    if family == "gpt_oss":
        gate_, up_ = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
        inner = (up_ + 1) * gate_ * torch.sigmoid(gate_ * experts.alpha)
    else:
        inner = up * experts.act_fn(gate)
    expected = inner @ (down if columns else down.T)
    with torch.no_grad():
        if family == "llama4":
            found = experts(torch.cat([x, x]))[:1]
        else:
            found = experts(x, torch.tensor([[0]]), torch.tensor([[1.0]]))
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "config", "message"),
    [
        ("l.0.attn.qkv_proj", (96, 32), {}, "expected a model_type in config.json, found none"),
        ("l.0.attn.qkv_proj", (96, 32), {"model_type": "codegen"}, "in models of type codegen is not known"),
        ("l.0.attn.qkv_proj", (96, 32), {"model_type": "phi3"}, "expected hidden_size .* in config.json, found none"),
        ("l.0.attn.query_key_value", (96, 32), {"model_type": "falcon", **BASE}, "expected new_decoder_architecture"),
        ("l.0.attn.c_attn", (24, 72), {"model_type": "gpt2", "n_embd": 32, "n_head": 5}, "5 heads do not divide"),
        ("h.0.crossattention.c_attn", (24, 48), {"model_type": "gpt2"}, "in cross-attention it holds k and v only"),
        ("l.0.mlp.gate_up_proj", (21, 32), {"model_type": "phi3"}, "21 rows do not make two halves"),
    ],
)
def test_what_the_configuration_does_not_tell_is_refused(name, shape, config, message):
    with pytest.raises(UnsupportedDtypeError, match=f"{name}.weight' in .*cannot be split: .*{message}.*scan it whole"):
        split_fused(plan_of(name, torch.zeros(shape)), config)


def test_a_weight_of_another_size_than_the_configuration_says_is_refused():
    with pytest.raises(UnsupportedDtypeError, match=r"projections of 72 rows together, found shape \(70, 32\)"):
        take_part(torch.zeros(70, 32), FusedPart("q", 0, 1, 0, 24, 72))


def test_packed_gpt_oss_experts_are_transposed_so_their_rows_alternate():
    """The library unpacks blocks [rows, groups, 16] to columns of [in, out]: what it takes from columns is in rows."""
    ref = TensorRef("mlp.experts.gate_up_proj_blocks", Path("m"), "U8", (6, 2, 16), 0, 192)
    plan = WeightPlan(
        "mlp.experts.0.gate_up_proj", "mlp.experts.gate_up_proj", ref, decoder=read_mxfp4, expert=0, parts=2
    )
    gate, up = split_fused(replace(plan, whole_shape=(2, 6, 64)), {"model_type": "gpt_oss"})
    rows = torch.arange(6)[:, None].expand(6, 64)
    assert take_part(rows, gate.part)[:, 0].tolist() == [0, 2, 4]
    assert take_part(rows, up.part)[:, 0].tolist() == [1, 3, 5]


def test_other_weights_stay_whole():
    plan = plan_of("l.0.mlp.down_proj", torch.zeros(4, 4))
    assert split_fused(plan, None) == (plan,)
    assert plan_of("l.0.mlp.up_proj", torch.zeros(4, 4)).part is None
