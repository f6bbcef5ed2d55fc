"""A selection on live models: exactly the named parameters train, or an error and nothing changes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import spectrum_fast
from spectrum_fast.choose.selection.formats import write_selection
from spectrum_fast.choose.selection.model.names import canonical_name
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import Selection, parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint.naming import module_type


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 4, bias=False)
        self.gate_proj = nn.Linear(4, 6, bias=True)


class Body(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.norm = nn.LayerNorm(4)


class Model(nn.Module):
    def __init__(self, layers: int = 12, tied: bool = False) -> None:
        super().__init__()
        self.model = Body(layers)
        self.lm_head = nn.Linear(4, 10, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def choose(*names: str) -> Selection:
    return parse_selection("".join(f"{name}\n" for name in names))


def test_exactly_the_named_modules_train_with_their_bias():
    model = Model()
    applied = choose("model.layers.1.gate_proj", "model.layers.1.gate", "lm_head").apply(model)
    expected = {"model.layers.1.gate.weight", "model.layers.1.gate_proj.weight", "model.layers.1.gate_proj.bias"}
    assert trainable(model) == expected | {"lm_head.weight"}
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (applied.trainable_parameters, applied.total_parameters) == (16 + 24 + 6 + 40, total)
    assert (applied.trainable_bytes, applied.total_bytes) == (4 * 86, 4 * total)
    assert applied.matched["model.layers.1.gate_proj"] == (
        "model.layers.1.gate_proj.weight",
        "model.layers.1.gate_proj.bias",
    )
    assert applied.trainable_fraction == 86 / total
    assert f"86 of {total:,} parameters trainable" in applied.summary()


def test_a_prefix_is_not_a_match():
    model = Model()
    choose("model.layers.1.gate").apply(model)
    assert trainable(model) == {"model.layers.1.gate.weight"}


def test_bytes_follow_the_dtype_and_earlier_flags_do_not_matter():
    model = Model().to(torch.bfloat16).requires_grad_(False)
    applied = choose("lm_head").apply(model)
    assert applied.trainable_bytes == 2 * 40
    assert trainable(model) == {"lm_head.weight"}


def test_an_entry_without_a_match_changes_nothing():
    model = Model()
    before = trainable(model)
    with pytest.raises(
        SelectionError, match=r"(?s)1 selected modules.*nothing was changed.*gate_prj; nearest: .*gate_proj"
    ):
        choose("lm_head", "model.layers.1.gate_prj").apply(model)
    assert trainable(model) == before
    applied = choose("lm_head", "model.layers.1.gate_prj").apply(model, strict=False)
    assert applied.unmatched == ("model.layers.1.gate_prj",)
    assert "; 1 entry matched nothing" in applied.summary()
    with pytest.raises(SelectionError, match="match no parameter"):
        choose("nothing.here").apply(model, strict=False)


def test_long_lists_of_missing_entries_are_cut_short():
    with pytest.raises(SelectionError, match=r"(?s)^9 selected modules.*and 4 more$"):
        choose(*(f"x.{i}" for i in range(9))).apply(Model())


def test_an_empty_selection_never_freezes_a_model():
    model = Model()
    with pytest.raises(SelectionError, match="would freeze the whole model"):
        Selection(modules=()).apply(model)
    with pytest.raises(SelectionError, match="no parameters"):
        choose("a").apply(nn.Identity())
    assert len(trainable(model)) == len(list(model.parameters()))


class Wrapper(nn.Module):
    """Holds a model under a chosen attribute path."""

    def __init__(self, inner: nn.Module, path: str) -> None:
        super().__init__()
        head, _, rest = path.partition(".")
        self.add_module(head, Wrapper(inner, rest) if rest else inner)


@pytest.mark.parametrize(
    "path", ["_orig_mod", "module", "base_model.model", "module._orig_mod", "_fsdp_wrapped_module"]
)
def test_wrappers_are_seen_through(path):
    wrapped = Wrapper(Model(), path)
    choose("model.layers.10.gate", "lm_head").apply(wrapped)
    assert trainable(wrapped) == {f"{path}.model.layers.10.gate.weight", f"{path}.lm_head.weight"}


def test_torch_compile_is_seen_through():
    compiled = torch.compile(Model())
    assert isinstance(compiled, nn.Module)
    choose("model.layers.10.gate").apply(compiled)
    assert trainable(compiled) == {"_orig_mod.model.layers.10.gate.weight"}


def test_selections_made_on_a_wrapped_model_fit_the_bare_one():
    model = Model()
    choose("_orig_mod.model.layers.0.gate", "module.lm_head").apply(model)
    assert trainable(model) == {"model.layers.0.gate.weight", "lm_head.weight"}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model.language_model.layers.0.q", "model.layers.0.q"),
        ("language_model.model.layers.0.q", "model.layers.0.q"),
        ("model.language_model.model.layers.0.q", "model.layers.0.q"),
        ("language_model.lm_head", "lm_head"),
        ("module.module.lm_head.weight", "lm_head.weight"),
        ("model.layers.3._checkpoint_wrapped_module.q", "model.layers.3.q"),
        ("base_model.model.model.layers.0.q", "model.layers.0.q"),
        ("model.visual.blocks.0.q", "model.visual.blocks.0.q"),
        ("model.layers.0.module.q", "model.layers.0.module.q"),
    ],
)
def test_canonical_names(name, short):
    assert canonical_name(name) == short


def test_vision_language_prefixes():
    model = Wrapper(Body(2), "model.language_model")
    choose("model.layers.1.gate", "language_model.model.embed_tokens").apply(model)
    assert trainable(model) == {
        "model.language_model.layers.1.gate.weight",
        "model.language_model.embed_tokens.weight",
    }


def test_two_modules_of_one_canonical_name_are_an_error_unless_named_exactly():
    model = nn.Module()
    model.add_module("model", Body(1))
    model.add_module("module", Wrapper(Body(1), "model"))
    with pytest.raises(SelectionError, match="expected one module of the model, found 2"):
        choose("_orig_mod.model.norm").apply(model)
    choose("model.norm").apply(model)
    assert trainable(model) == {"model.norm.weight", "model.norm.bias"}


def test_the_prefix_of_a_base_model():
    body = Body(2)
    model = Wrapper(body, "bert")
    model.base_model_prefix = "bert"  # type: ignore[assignment]
    choose("layers.0.gate").apply(model)
    assert trainable(model) == {"bert.layers.0.gate.weight"}
    body.base_model_prefix = "model"  # type: ignore[assignment]
    choose("model.layers.1.gate").apply(body)
    assert trainable(body) == {"layers.1.gate.weight"}


def test_tied_weights_match_under_both_names_and_count_once():
    model = Model(tied=True)
    scan = Scan(
        "m",
        "spectrum",
        tuple(
            ModuleScore(name=name, type=module_type(name), snr=1.0)
            for name in ("model.embed_tokens", "model.layers.0.gate", "model.layers.1.gate")
        ),
        ties={"lm_head": "model.embed_tokens"},
    )
    applied = scan.select(50).apply(model)
    assert trainable(model) == {"model.embed_tokens.weight", "model.layers.0.gate.weight"}
    assert applied.trainable_parameters == 40 + 16
    assert applied.total_parameters == sum(parameter.numel() for parameter in model.parameters())


class FusedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Module()
        self.experts.gate_up_proj = nn.Parameter(torch.zeros(4, 8, 4))


def test_fused_experts_are_explained_and_work_by_their_own_name():
    model = Wrapper(FusedExperts(), "model.layers.mlp")
    with pytest.raises(
        SelectionError, match=r"fuses its experts into model\.layers\.mlp\.experts\.gate_up_proj.*no conversion mapping"
    ):
        choose("model.layers.mlp.experts.17.gate_proj").apply(model)
    choose("model.layers.mlp.experts.gate_up_proj").apply(model)
    assert trainable(model) == {"model.layers.mlp.experts.gate_up_proj"}


def test_quantised_weights_cannot_train_and_nothing_is_changed():
    model = Model()
    model.lm_head.weight = nn.Parameter(torch.zeros(40, 1, dtype=torch.uint8), requires_grad=False)
    before = trainable(model)
    with pytest.raises(SelectionError, match=r"lm_head\.weight' is stored as torch\.uint8.*adapters"):
        choose("lm_head", "model.norm").apply(model)
    assert trainable(model) == before


def test_partitioned_parameters_count_their_true_size():
    model = Model()
    partitioned = model.lm_head.weight
    partitioned.data = torch.empty(0)
    partitioned.ds_numel = 40  # type: ignore[attr-defined]
    assert choose("lm_head").apply(model).trainable_parameters == 40


def _tiny_llama(**config):
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=12,
            num_attention_heads=2,
            num_key_value_heads=1,
            **config,
        )
    )


def _scan_of(model: nn.Module) -> Scan:
    names = [name.removesuffix(".weight") for name, weight in model.named_parameters() if weight.ndim == 2]
    modules = tuple(ModuleScore(name=name, type=module_type(name), snr=float(i)) for i, name in enumerate(names))
    return Scan("tiny", "spectrum", modules)


@pytest.mark.parametrize("tied", [False, True])
def test_a_real_llama_trains_what_was_selected(tied):
    model = _tiny_llama(tie_word_embeddings=tied)
    selection = _scan_of(model).select(25)
    applied = selection.apply(model)
    assert len(selection.modules) == 7 * 3
    expected = {f"model.layers.{i}.{kind}.weight" for i in (9, 10, 11) for kind in {m.type for m in selection.modules}}
    expected |= {"model.embed_tokens.weight"} if tied else {"model.embed_tokens.weight", "lm_head.weight"}
    assert trainable(model) == expected
    assert applied.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    tokens = torch.arange(8).reshape(1, 8)
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == expected


def test_peft_adapts_exactly_the_listed_modules():
    peft = pytest.importorskip("peft")
    model = _tiny_llama()
    targets = json.loads(write_selection(_scan_of(model).select(25), "peft"))
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    found = {
        name.removeprefix("base_model.model.").split(".lora_A")[0] for name in trainable(adapted) if ".lora_A" in name
    }
    assert found == set(targets)


def test_a_model_upcycled_from_equal_experts_is_trained_as_selected(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.MixtralConfig(**sizes, num_hidden_layers=2, vocab_size=50, num_local_experts=4)
    model = transformers.MixtralForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "experts" in name and parameter.ndim == 3:
            parameter.data.copy_(parameter.data[:1].expand_as(parameter))
    model.save_pretrained(tmp_path)
    scan = spectrum_fast.scan(tmp_path, top_percent=None)
    assert (len(scan.modules), scan.ties) == (2 * (4 + 1 + 4 * 3) + 2, {})
    scan.select(100, always="none").apply(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in frozen} <= {
        "norm",
        "input_layernorm",
        "post_attention_layernorm",
    }
