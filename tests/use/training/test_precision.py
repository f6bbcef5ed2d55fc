"""Updates that are too small for bfloat16: float32 for what is trained, and a measured share of what has changed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="needs the training libraries")
pytest.importorskip("accelerate", reason="needs the training libraries")

import transformers

import spectrum_fast as sf
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.use.training.precision import ChangeMeter, keeps_small_updates

from support.tiny_models import make_model

CHOSEN = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")


def train(folder: Path, dtype: torch.dtype, family: str = "llama", **options: Any) -> tuple[dict[str, float], Any]:
    """Ten steps at 1e-5 on a model whose weights are as large as a trained one's; gives the share changed by name."""
    model = make_model(family, 24, layers=2).to(dtype)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    rows = [
        {"input_ids": row, "labels": row}
        for row in torch.randint(3, 24, (20, 12), generator=torch.Generator().manual_seed(0))
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        use_cpu=True,
        learning_rate=1e-5,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=2,
        **options,
    )
    callback = sf.SpectrumCallback(parse_selection("".join(f"{name}\n" for name in CHOSEN)))
    transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback]).train()
    changed = {
        name: float((value != before[name]).float().mean())
        for name, value in model.named_parameters()
        if not torch.equal(value, before[name].to(value.dtype))
    }
    return changed, model


def test_selected_weights_of_a_bfloat16_model_are_trained_in_float32(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="only .* have changed")
        changed, model = train(tmp_path, torch.bfloat16, bf16=True)
    assert set(changed) == {f"{name}.weight" for name in CHOSEN}
    assert min(changed.values()) > 0.95
    kept = {value.dtype for name, value in model.named_parameters() if name not in changed}
    assert kept == {torch.bfloat16}
    assert {dict(model.named_parameters())[name].dtype for name in changed} == {torch.float32}
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["changed_share"] > 0.95
    assert run["trainable"]["bytes"] == 4 * run["trainable"]["parameters"]
    assert [entry["step"] for entry in run["history"] if "changed_percent" in entry] == [10, 11, 12]


def test_updates_that_are_rounded_away_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"only .* % of the trained values have changed .*1e-05.*stable_adamw"):
        changed, _ = train(tmp_path, torch.bfloat16, bf16=False)
    assert max(changed.values(), default=0) < 0.5
    assert json.loads((tmp_path / "run.json").read_text())["changed_share"] < 0.5


@pytest.mark.parametrize("family", ["llama", "qwen-moe", "gpt-neox"])
def test_mixed_types_train_in_every_family(tmp_path: Path, family: str) -> None:
    """Fused experts as well: everything but the head is float32 or bfloat16 by turns."""
    model = make_model(family, 24, layers=2).to(torch.bfloat16)
    names = [name.removesuffix(".weight") for name, value in model.named_parameters() if value.dim() > 1]
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    callback = sf.SpectrumCallback(parse_selection("".join(f"{name}\n" for name in names[::2])), partial="whole")
    callback.on_init_end(arguments, None, None, model=model)  # type: ignore[arg-type]
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16, torch.float32}
    tokens = torch.arange(3, 15)[None]
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize(
    ("optim", "optim_args", "expected"),
    [
        ("adamw_torch_fused", None, False),
        ("stable_adamw", None, True),
        ("adamw_anyprecision", None, False),
        ("adamw_anyprecision", "use_kahan_summation=True", True),
        ("adamw_torch_8bit", "bf16_stochastic_round=true, block_size=64", True),
        ("adamw_torch_4bit", "bf16_stochastic_round=False", False),
    ],
)
def test_optimizers_that_need_no_float32(optim: str, optim_args: str | None, expected: bool) -> None:
    arguments: Any = SimpleNamespace(optim=transformers.training_args.OptimizerNames(optim), optim_args=optim_args)
    assert keeps_small_updates(arguments) is expected


def test_only_values_with_a_gradient_are_counted() -> None:
    """A row of an embedding that no token names is not a row that was rounded away."""
    table = torch.nn.Parameter(torch.ones(8, 4))
    optimizer = torch.optim.SGD([table], lr=0.1)
    meter = ChangeMeter(optimizer)
    assert meter.share() is None
    table.grad = torch.zeros(8, 4)
    table.grad[:2] = 1
    table.grad[1] = 1e-12
    meter.before_step()
    optimizer.step()
    assert meter.share() == 0.5
    assert meter.steps == 1
