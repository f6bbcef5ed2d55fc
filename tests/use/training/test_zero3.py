"""Real DeepSpeed ZeRO-3 in two processes, held to one process, to bytes on the disk and to DeepSpeed's partitions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.use.training.arguments import METHODS

from support.launching import Outcome, launch, needs, zero
from support.tiny_models import FAMILIES

CONTROLS = [("llama", "random"), ("llama", "bottom")]
DEFAULT_RUNS = [
    ("llama", "full"),
    ("llama", "qlora"),
    ("llama", "spectrum"),
    ("llama", "spectrum-lora"),
    ("qwen-moe", "spectrum"),
    ("gpt-neox", "spectrum"),
]
"""A plain model, adapters, codes and a selection, each once: a run takes seconds, every other is slow."""
SLOW_RUNS = [(family, name) for family in FAMILIES for name in METHODS if (family, name) not in DEFAULT_RUNS]
# Partitions even the smallest frozen parameter, the one that checkpointing stumbles over.
_NO_PERSISTENCE = zero(3, stage3_param_persistence_threshold=0)


def _both(runs: list[tuple[str, str]], configure: Callable[..., Any], shop: Path, folder: Path) -> Any:
    needs("trl", "deepspeed", "peft", "bitsandbytes")
    masked = {
        "name": "masked",
        "weight_decay": 0.1,
        "spectrum": {"partial": "mask", "grouping": "experts-merged", "always": "none"},
    }
    with_mask = ("llama", "spectrum") in runs
    controls = CONTROLS if with_mask else []
    single = [configure(family, method, folder / "alone", processes=1) for family, method in [*runs, *controls]]
    if with_mask:
        single.append(configure("qwen-moe", "spectrum", folder / "alone", processes=1, **masked))
    alone = launch(
        single,
        folder / "alone",
        shop / "cache",
        processes=1,
    )
    cases = [configure(family, method, folder / "pair", processes=2) for family, method in runs]
    extra = []
    if with_mask:
        before = configure(
            "llama",
            "spectrum",
            folder / "pair",
            processes=2,
            name="whole",
            steps=4,
            save_strategy="steps",
            save_steps=2,
        )
        after = configure(
            "llama",
            "spectrum",
            folder / "pair",
            processes=2,
            name="resumed",
            steps=4,
            resume_from_checkpoint=str(folder / "pair" / "whole" / "checkpoint-2"),
        )
        sf.scan(shop / "llama").save(folder / "scan.json")
        apart = configure(
            "llama",
            "random",
            folder / "pair",
            processes=2,
            name="apart",
            deepspeed=None,
            spectrum={"scan": str(folder / "scan.json")},
        )
        extra = [{**apart, "apart": True, "may_fail": True}]
        extra += [before, after, configure("qwen-moe", "spectrum", folder / "pair", processes=2, **masked)]
        for reentrant in (False, True):
            case = configure(
                "llama",
                "spectrum",
                folder / "pair",
                processes=2,
                name=f"reentrant-{reentrant}",
                deepspeed=_NO_PERSISTENCE,
                gradient_checkpointing=True,
                gradient_checkpointing_kwargs={"use_reentrant": reentrant},
            )
            extra.append(case)
    return alone, launch([*cases, *extra], folder / "pair", shop / "cache", processes=2)


@pytest.fixture(scope="module")
def runs(configure: Callable[..., Any], shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _both(DEFAULT_RUNS, configure, shop, tmp_path_factory.mktemp("zero3"))


@pytest.fixture(scope="module")
def slow_runs(configure: Callable[..., Any], shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _both(SLOW_RUNS, configure, shop, tmp_path_factory.mktemp("zero3-slow"))


def _check(runs: Any, shop: Path, family: str, method: str) -> None:
    alone, pair = (outcomes[f"{family}-{method}"] for outcomes in runs)
    assert pair.run["processes"] == 2
    assert alone.run["processes"] == 1
    # They differ by the order of float32 sums. Adapters on a 4-bit base are bfloat16 (TRL's choice), and only ZeRO
    # keeps float32 copies of them, so that after an update these agree to half a unit of bfloat16.
    later = 2**-9 if METHODS[method].quantised else 2e-6
    losses, expected = torch.tensor(pair.losses), torch.tensor(alone.losses)
    torch.testing.assert_close(losses[:1], expected[:1], rtol=2e-6, atol=0)
    torch.testing.assert_close(losses[1:], expected[1:], rtol=later, atol=0)
    trained = pair.run["trainable"]["parameters"]
    assert 2 * pair.facts["partition"] == trained == alone.facts["partition"]  # every size here is even
    assert pair.facts["states"] == pair.facts["partition"]
    assert pair.run["optimizer_tensors"] == pair.run["trainable"]["tensors"]
    if METHODS[method].adapters:
        _check_adapter(pair, method)
    else:
        for outcome in (alone, pair):
            _check_bytes(outcome, shop / family, method)


def _check_bytes(outcome: Outcome, base: Path, method: str) -> None:
    """Exactly the selected tensors differ from the checkpoint, byte for byte."""
    before, after = load_file(base / "model.safetensors"), outcome.tensors()
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name].numpy().tobytes() != after[name].numpy().tobytes()}
    if method == "full":
        assert changed == set(before)
        return
    names = load_selection(outcome.folder / "selection.json").names
    expected = {tensor for name in names for tensor in _tensors_of(name, before)}
    assert changed == expected
    assert expected < set(before)


def _tensors_of(name: str, tensors: dict[str, Any]) -> set[str]:
    """The checkpoint's tensors of a module, or of experts that are one parameter at run time."""
    fused = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
    if fused:
        parts = ("gate_proj", "up_proj") if fused[2] == "gate_up_proj" else ("down_proj",)
        found = {
            tensor
            for tensor in tensors
            for part in parts
            if re.fullmatch(re.escape(fused[1]) + rf"\.\d+\.{part}\.weight", tensor)
        }
    else:
        found = {tensor for tensor in (f"{name}.weight", f"{name}.bias") if tensor in tensors}
    assert found, name
    return found


def _check_adapter(outcome: Outcome, method: str) -> None:
    saved = outcome.tensors("adapter_model.safetensors")
    assert not (outcome.folder / "model.safetensors").exists()
    homes = {re.sub(r"\.lora_[AB]\.weight$", "", name).removeprefix("base_model.model.") for name in saved}
    assert all(value.abs().max() > 0 for name, value in saved.items() if "lora_B" in name)  # it starts at zero
    if METHODS[method].order is not None:
        selection = load_selection(outcome.folder / "selection.json")
        wanted = {module.name for module in selection.modules}
        assert {re.sub(r"(\.base_layer)+$", "", home) for home in homes} <= wanted | {
            name.rpartition(".")[0] for name in wanted
        }
        assert len(homes) == len(wanted)


@pytest.mark.parametrize(("family", "method"), DEFAULT_RUNS)
def test_two_processes_train_what_one_does_and_nothing_else(runs, shop, family, method):
    _check(runs, shop, family, method)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), SLOW_RUNS)
def test_every_method_on_every_family(slow_runs, shop, family, method):
    _check(slow_runs, shop, family, method)


def test_the_controls_have_the_budget_of_the_selection(runs):
    chosen = {
        name: load_selection(runs[0][f"llama-{name}"].folder / "selection.json") for name in ("spectrum", "bottom")
    }
    top, bottom = ({module.name for module in chosen[name].modules} for name in ("spectrum", "bottom"))
    assert len(top) == len(bottom)
    assert not top & bottom
    shares = {runs[0][f"llama-{name}"].run["trainable"]["parameters"] for name in ("spectrum", "bottom", "random")}
    assert len(shares) == 1


def test_processes_that_would_train_different_parameters_are_stopped(runs):
    outcome = runs[1]["apart"]
    assert "process 1 would train other parameters than process 0" in outcome.facts["error"]
    assert not (outcome.folder / "run.json").exists()


def test_a_resumed_run_ends_in_the_same_bytes(runs):
    whole, resumed = runs[1]["whole"], runs[1]["resumed"]
    assert resumed.run["resumed_at_step"] == 2
    assert resumed.run["tokens"] == whole.run["tokens"] > 0
    assert resumed.losses == whole.losses
    before, after = whole.tensors(), resumed.tensors()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)


@pytest.mark.parametrize("place", [0, 1])
def test_masked_experts_keep_their_bytes_on_the_disk(runs, shop, place):
    """Single experts inside fused parameters, with weight decay asked for."""
    outcome = runs[place]["masked"]
    masked = outcome.run["selection"]["masked"]
    assert masked
    assert all(".experts." in name for name in masked)
    _check_bytes(outcome, shop / "qwen-moe", "spectrum")


@pytest.mark.parametrize("reentrant", [False, True])
def test_frozen_parameters_and_both_modes_of_gradient_checkpointing(runs, reentrant):
    """Every frozen parameter is partitioned, which is what CheckpointError of older DeepSpeed versions needs."""
    outcome = runs[1][f"reentrant-{reentrant}"]
    torch.testing.assert_close(
        torch.tensor(outcome.losses), torch.tensor(runs[0]["llama-spectrum"].losses), rtol=2e-6, atol=0
    )


def test_a_trained_checkpoint_loads_as_any_other(runs, shop):
    transformers = pytest.importorskip("transformers")
    for family in FAMILIES:
        outcome = runs[1][f"{family}-spectrum"]
        model, report = transformers.AutoModelForCausalLM.from_pretrained(outcome.folder, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(outcome.folder)
        assert torch.isfinite(model(**tokenizer("the cat sees", return_tensors="pt")).logits).all()


def test_a_trained_adapter_loads_onto_its_base(runs, shop):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    outcome = runs[1]["llama-spectrum-lora"]
    tokens = torch.tensor([[3, 4, 5, 6]])
    base = transformers.AutoModelForCausalLM.from_pretrained(shop / "llama")
    plain = base(input_ids=tokens).logits
    adapted = peft.PeftModel.from_pretrained(base, outcome.folder)(input_ids=tokens).logits
    assert not torch.equal(plain, adapted)


def test_the_run_says_what_it_was(runs):
    run = runs[1]["llama-spectrum"].run
    assert (run["schema"], run["kind"], run["method"], run["shard"]) == (1, "run", "spectrum", "zero3")
    assert run["selection"]["digest"].startswith("sha256:")
    assert len(run["peak_rss_bytes"]) == 2
    assert run["tokens"] > 0
    assert run["changed_share"] is None  # DeepSpeed steps float32 copies
    assert runs[0]["llama-spectrum"].run["changed_share"] > 0.9
    assert runs[1]["llama-spectrum"].facts["scans"] == [1, 0]  # one process scans
    assert run["loss"]["last"] == pytest.approx(runs[1]["llama-spectrum"].losses[-1])
    assert run["versions"]["deepspeed"]
    logged = [entry for entry in run["history"] if "loss" in entry]
    assert all({"train_tokens_per_second", "peak_rss_gib", "trainable_percent"} <= entry.keys() for entry in logged)
