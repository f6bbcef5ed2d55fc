"""What is trained on live transformers models: fused experts, masks, adapters, guards, and a script of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spectrum_fast.choose.selection.model.apply import measure_trainable
from spectrum_fast.choose.selection.model.masking import is_masked
from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.read.checkpoint.naming import module_type

from support.tiny_models import make_model

pytest.importorskip("trl")

from spectrum_fast.use.training.trainable import require_matching_optimizer, require_some_trainable

EXPERTS = [f"model.layers.{layer}.mlp.experts" for layer in range(2)]


def choose(*names: str):
    return parse_selection("".join(f"{name}\n" for name in names))


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def moe():
    return make_model("qwen-moe", layers=2)


def train_a_little(model, optimizer, steps: int = 3) -> None:
    tokens = torch.randint(3, 30, (4, 16), generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()


def test_names_of_a_checkpoint_are_followed_into_the_model():
    model = make_model("gpt-neox", layers=2)
    choose("embed_out", "gpt_neox.layers.1.attention.dense").apply(model)  # stored as embed_out, loaded as lm_head
    assert trainable(model) == {
        "lm_head.weight",
        "gpt_neox.layers.1.attention.dense.weight",
        "gpt_neox.layers.1.attention.dense.bias",
    }
    wrapped = torch.compile(model)
    choose("embed_out").apply(wrapped)  # type: ignore[arg-type]
    assert trainable(wrapped) == {"_orig_mod.lm_head.weight"}


def test_a_part_of_a_fused_parameter_is_refused_unless_it_is_said_how(moe):
    selection = choose(f"{EXPERTS[0]}.1.gate_proj", f"{EXPERTS[0]}.3.up_proj", f"{EXPERTS[1]}.0.down_proj")
    before = trainable(moe)
    with pytest.raises(SelectionError, match=r"gate_up_proj: 2 of its 8 tensors are selected"):
        selection.apply(moe)
    assert trainable(moe) == before
    selection.apply(moe, partial="whole")
    assert trainable(moe) == {f"{EXPERTS[0]}.gate_up_proj", f"{EXPERTS[1]}.down_proj"}
    whole = choose(*(f"{EXPERTS[1]}.{expert}.down_proj" for expert in range(4)))
    whole.apply(moe)
    assert trainable(moe) == {f"{EXPERTS[1]}.down_proj"}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_masked_experts_keep_their_bytes_and_the_others_move_as_ever(moe, kind):
    reference = make_model("qwen-moe", layers=2)
    reference.requires_grad_(False)
    fused = dict(reference.named_parameters())[f"{EXPERTS[0]}.gate_up_proj"]
    fused.requires_grad_(True)
    selection = choose(f"{EXPERTS[0]}.1.gate_proj", f"{EXPERTS[0]}.3.up_proj")
    applied = selection.apply(moe, partial="mask")
    ours = dict(moe.named_parameters())[f"{EXPERTS[0]}.gate_up_proj"]
    before = ours.detach().clone()
    for model, parameter in ((moe, ours), (reference, fused)):
        made = (
            torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0)
            if kind == "adamw"
            else torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        )
        train_a_little(model, made, steps=1)
    keep = torch.zeros_like(ours, dtype=torch.bool)
    keep[1, :16], keep[3, 16:] = True, True  # gate_proj is the first half of the rows, up_proj the second
    assert torch.equal(ours[~keep], before[~keep])
    assert torch.equal(ours[keep], fused[keep])
    assert not torch.equal(ours[keep], before[keep])
    assert applied.trainable_parameters == int(keep.sum())
    choose(f"{EXPERTS[0]}.gate_up_proj").apply(moe)
    assert not is_masked(ours)


def test_experts_compete_as_the_parameter_that_holds_them(moe):
    names = [f"{home}.{expert}.{part}" for home in EXPERTS for expert in range(4) for part in ("gate_proj", "up_proj")]
    sums = {"signal_sum": 2.0, "noise_sum": 1.0, "s_max": 1.0, "s_min": 0.0, "threshold": 0.5}
    modules = tuple(
        ModuleScore(
            name=name,
            type=module_type(name),
            parameter=f"{name}.weight",
            shape=(16, 32),
            snr=2.0,
            n_signal=1,
            n_noise=1,
            error_bound=0.0,
            **(sums | ({"signal_sum": 3.0} if name == names[8] else {})),
        )
        for name in names
    )
    scan = Scan("moe", "spectrum", modules)
    seen = as_fused_in(scan, moe)
    assert {module.parameter for module in seen.modules} == {f"{home}.gate_up_proj" for home in EXPERTS}
    selection = seen.select(50, always="none")
    assert selection.names == (f"{EXPERTS[1]}.gate_up_proj",)  # the one with more signal
    selection.apply(moe)
    assert trainable(moe) == {f"{EXPERTS[1]}.gate_up_proj"}
    failed = ScanFailure(name=names[0], kind="values", message="NaN")
    broken = as_fused_in(Scan("moe", "spectrum", modules[1:], (failed,)), moe)
    assert broken.failures[0].parameter == f"{EXPERTS[0]}.gate_up_proj"
    llama = make_model("llama", layers=2)
    assert as_fused_in(scan, llama) is scan


def test_adapters_on_layers_and_on_fused_experts(moe):
    peft = pytest.importorskip("peft")
    selection = choose("model.embed_tokens", "model.layers.0.self_attn.q_proj", f"{EXPERTS[0]}.down_proj", "lm_head")
    config = selection.lora_config(moe, r=2, lora_dropout=0.0)
    assert set(config.target_modules or ()) == {"model.layers.0.self_attn.q_proj"}
    assert config.target_parameters == [f"{EXPERTS[0]}.down_proj"]
    adapted = peft.get_peft_model(moe, config)
    homes = {name.split(".lora_")[0] for name in trainable(adapted)}
    assert homes == {"base_model.model.model.layers.0.self_attn.q_proj", f"base_model.model.{EXPERTS[0]}"}
    with pytest.raises(SelectionError, match="already has adapters"):
        selection.apply(adapted)


def test_adapters_that_cannot_be(moe):
    pytest.importorskip("peft")
    with pytest.raises(SelectionError, match="lora_dropout: expected 0"):
        choose(f"{EXPERTS[0]}.down_proj").lora_config(moe, lora_dropout=0.1)
    with pytest.raises(SelectionError, match="one of several tensors that the model fuses"):
        choose(f"{EXPERTS[0]}.1.down_proj").lora_config(moe)
    with pytest.raises(SelectionError, match="no module for an adapter"):
        choose("lm_head").lora_config()


def test_nothing_and_everything_are_errors_before_the_first_step():
    model = make_model("llama", layers=2)
    require_some_trainable(model, all_expected=True)
    assert measure_trainable(model).trainable_fraction == 1.0
    with pytest.raises(SelectionError, match="every parameter of the model is trainable though"):
        require_some_trainable(model, all_expected=False)
    model.lm_head.requires_grad_(False)
    with pytest.raises(SelectionError, match=r"method full: .* 1 frozen: lm_head\.weight"):
        require_some_trainable(model, all_expected=True)
    model.requires_grad_(False)
    with pytest.raises(SelectionError, match="no parameter of the model is trainable"):
        require_some_trainable(model, all_expected=False)


def test_an_optimizer_made_too_early_is_caught():
    model = make_model("llama", layers=2)
    early = torch.optim.AdamW(model.parameters())
    choose("lm_head").apply(model)
    with pytest.raises(SelectionError, match=r"should not hold .*; select before the optimizer is made"):
        require_matching_optimizer(early, model)
    head = torch.optim.AdamW([model.lm_head.weight])
    assert require_matching_optimizer(head, model) == 1
    model.model.norm.requires_grad_(True)
    with pytest.raises(SelectionError, match=r"it lacks model\.norm\.weight"):
        require_matching_optimizer(head, model)


def test_tied_weights_count_once():
    model = make_model("llama", layers=2, tie_word_embeddings=True)
    choose("lm_head").apply(model)
    share = measure_trainable(model)
    assert (share.trainable_tensors, share.trainable_parameters) == (1, 32 * 32)


def test_a_script_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One more line in a script with transformers' own Trainer."""
    transformers = pytest.importorskip("transformers")
    import spectrum_fast as sf

    model = make_model("llama", layers=2)
    rows = [{"input_ids": [3, 4, 5, 6], "labels": [3, 4, 5, 6]}] * 4
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        per_device_train_batch_size=1,
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    callback = sf.SpectrumCallback(choose("model.layers.1.mlp.up_proj"))
    transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback]).train()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"model.layers.1.mlp.up_proj.weight"}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["steps"], run["optimizer_tensors"], run["selection"]["modules"]) == (2, 1, 1)
    with pytest.raises(SelectionError, match="match no parameter"):
        transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=[sf.SpectrumCallback(choose("nowhere"))]
        )


def test_a_callback_that_comes_too_late_is_an_error_and_trains_nothing(tmp_path: Path):
    """The optimizer is made of what was trainable before: everything."""
    transformers = pytest.importorskip("transformers")
    import spectrum_fast as sf

    model = make_model("llama", layers=2)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, use_cpu=True, report_to=[], disable_tqdm=True
    )
    rows = [{"input_ids": [3, 4, 5, 6], "labels": [3, 4, 5, 6]}] * 4
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.add_callback(sf.SpectrumCallback(choose("model.layers.1.mlp.up_proj")))
    with pytest.raises(SelectionError, match=r"the optimizer holds .* expected the 1 trainable.*not add_callback"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert not (tmp_path / "out" / "run.json").exists()


def test_tokens_of_a_resumed_run_are_those_of_all_its_sittings(tmp_path: Path):
    """Transformers counts them in its state, which a checkpoint holds."""
    transformers = pytest.importorskip("transformers")
    import spectrum_fast as sf

    rows = [{"input_ids": [3, 4, 5, 6], "labels": [3, 4, 5, 6]}] * 4
    runs = []
    for resume in (None, str(tmp_path / "checkpoint-2")):
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            save_steps=2,
            use_cpu=True,
            report_to=[],
            logging_steps=1,
            disable_tqdm=True,
            per_device_train_batch_size=1,
            include_num_input_tokens_seen=True,
        )
        callback = sf.SpectrumCallback(choose("model.layers.1.mlp.up_proj"))
        model = make_model("llama", layers=2)
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback])
        trainer.train(resume_from_checkpoint=resume)
        runs.append(json.loads((tmp_path / "run.json").read_text()))
    assert [(run["tokens"], run["resumed_at_step"]) for run in runs] == [(16, None), (16, 2)]
    rates = [entry["train_tokens_per_second"] for run in runs for entry in run["history"] if "loss" in entry]
    assert min(*rates, *(run["tokens_per_second"] for run in runs)) > 0
