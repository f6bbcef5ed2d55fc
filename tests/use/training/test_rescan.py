"""Live rescans under the real Trainer: what they report, what they leave alone, and what reselection changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs the training libraries")
pytest.importorskip("accelerate", reason="needs the training libraries")

import spectrum_fast as sf  # noqa: E402
from spectrum_fast.errors import SelectionError, UsageError  # noqa: E402
from spectrum_fast.use.training.trainable import change_trained, require_changeable  # noqa: E402

from support import architectures, tiny_models  # noqa: E402

STEPS = 6


class Watcher(transformers.TrainerCallback):
    """Copies of the weights and of what the optimizer holds, after every step and after the other callbacks."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Any]] = []
        self.held: list[set[str]] = []
        self.states: list[set[str]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        model, optimizer = parts["model"], parts["optimizer"].optimizer
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
        self.held.append({names[p] for group in optimizer.param_groups for p in group["params"]})
        self.states.append({names[p] for p in optimizer.state})


def run(
    folder: Path,
    *callbacks: Any,
    steps: int = STEPS,
    saving: dict[str, Any] | None = None,
    selection: Any = None,
    resume: Path | None = None,
    narrow: bool = False,
) -> tuple[Any, Watcher]:
    """Train a tiny Llama of 8 layers on fixed tokens; ``narrow``: in bfloat16, what is trained by our callback."""
    model = tiny_models.make_model("llama", 24, layers=8)
    selection = selection or sf.scan(model).select(25)
    if narrow:
        model.bfloat16()
        callbacks = (sf.SpectrumCallback(selection), *callbacks)
    else:
        selection.apply(model)
    generator = torch.Generator().manual_seed(0)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 24, (16, 12), generator=generator)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=0.05,
        weight_decay=0.1,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        bf16=narrow,
        **(saving or {"save_strategy": "no"}),
    )
    watcher = Watcher()
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[*callbacks, watcher])
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, watcher


def test_rescans_report_and_change_nothing(tmp_path: Path) -> None:
    callback = sf.RescanCallback(every_steps=2, top_percent=25)
    trainer, watched = run(tmp_path / "with", callback)
    _, alone = run(tmp_path / "without")
    for name, value in alone.weights[-1].items():
        assert torch.equal(watched.weights[-1][name], value), name
    assert [found.step for found in callback.history] == [2, 4, 6]
    lines = [json.loads(line) for line in (tmp_path / "with" / "rescans.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    start = tiny_models.make_model("llama", 24, layers=8)
    compared = sf.scan(start).compare(sf.scan(trainer.model), 25)
    last = callback.history[-1]
    assert last.spearman_to_first == pytest.approx(compared.spearman)
    assert last.median_change == pytest.approx(compared.median_relative)
    assert last.max_change > 0
    assert last.churn_to_first == pytest.approx(1 - compared.overlap.n_both / compared.overlap.n_a)
    logged = [entry for entry in trainer.state.log_history if "rescan_churn" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6]


def test_reselection_moves_flags_optimizer_and_state_together(tmp_path: Path) -> None:
    callback = sf.RescanCallback(every_steps=1, top_percent=25, reselect_every=3)
    trainer, watched = run(tmp_path, callback, steps=5)
    change = callback.history[2]
    assert change.added  # the learning rate is large: other modules have come to the top
    assert change.dropped
    assert all(not found.added for found in callback.history if found.step % 3)
    before, after = watched.held[1], watched.held[2]
    assert after == before - set(change.dropped) | set(change.added)
    assert after == {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert watched.states[2] == before - set(change.dropped)  # freed at once, the new ones not made yet
    assert watched.states[3] == after
    for name in watched.weights[0]:
        moved = not torch.equal(watched.weights[2][name], watched.weights[4][name])
        assert moved == (name in after), name
    for name in change.added:
        assert torch.equal(watched.weights[0][name], watched.weights[2][name])
    decayed = [group for group in trainer.optimizer.optimizer.param_groups if group["weight_decay"]]
    assert all(p.dim() > 1 for group in decayed for p in group["params"])
    assert sf.load_selection(tmp_path / "selection-step-3.json") == callback.selection


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
def test_a_run_resumed_after_reselection_ends_in_the_same_bytes(tmp_path: Path, narrow: bool) -> None:
    """A checkpoint's optimizer state is read back by place: groups are in model order, whenever a member came.

    In a bfloat16 model what has left the selection stays float32, also where a resumed run loads it.
    """
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "max_grad_norm": 1.0}
    callback = sf.RescanCallback(every_steps=3, reselect_every=3)
    trainer, whole = run(tmp_path / "whole", callback, saving=saving, narrow=narrow)
    assert callback.history[0].added
    assert callback.history[0].dropped
    assert all(p.dtype is torch.float32 for p in trainer.model.parameters() if p.requires_grad)
    chosen = sf.load_selection(tmp_path / "whole" / "selection-step-3.json")
    again = sf.RescanCallback(every_steps=3, reselect_every=3)
    _, resumed = run(
        tmp_path / "resumed",
        again,
        saving=saving,
        selection=chosen,
        resume=tmp_path / "whole" / "checkpoint-4",
        narrow=narrow,
    )
    assert len(resumed.weights) == 2
    for name, value in whole.weights[-1].items():
        assert resumed.weights[-1][name].dtype == value.dtype, name
        assert torch.equal(resumed.weights[-1][name], value), name


def test_a_change_that_cannot_be_leaves_all_as_it_was() -> None:
    model = tiny_models.make_model("llama", 24)
    sf.scan(model).select(50).apply(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    held = list(optimizer.param_groups[0]["params"])
    stranger = sf.scan(tiny_models.make_model("llama", 24, layers=9)).select(100)
    with pytest.raises(SelectionError):
        change_trained(stranger, model, optimizer)
    assert all(a is b for a, b in zip(held, optimizer.param_groups[0]["params"], strict=True))
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}


def test_only_the_named_tower_is_chosen_from(tmp_path: Path) -> None:
    model = architectures.build("qwen2.5-vl")
    callback = sf.RescanCallback(every_steps=1, only=["vision"], top_percent=50)
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    state = transformers.TrainerState(global_step=1)
    callback.on_train_begin(arguments, state, None, model=model)
    expected = sf.scan(model).select(50, only=["vision"])
    assert callback.selection is not None
    assert callback.selection.modules == expected.modules
    first, second = model.model.visual.blocks  # half of two blocks is taken: the better one of each type
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    first.load_state_dict(second.state_dict())
    second.load_state_dict(kept)
    callback.on_step_end(arguments, state, None, model=model)
    assert callback.history[0].churn_to_first == 1
    with pytest.raises(UsageError, match=r"only: expected towers of .*language-model, vision.* found 'audio'"):
        sf.RescanCallback(every_steps=1, only=["audio"]).on_train_begin(arguments, state, None, model=model)
    with pytest.raises(TypeError, match="top_percnt"):
        sf.RescanCallback(every_steps=1, top_percnt=5)


def test_bad_arguments_and_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="every_steps"):
        sf.RescanCallback(every_steps=0)
    with pytest.raises(UsageError, match="a multiple of every_steps"):
        sf.RescanCallback(every_steps=10, reselect_every=15)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("top percent: expected", {"top_percent": 0}),
        ("unknown grouping 'tipe': expected one of type, .*nearest: type", {"grouping": "tipe"}),
        ("unknown criterion 'svd': expected one of", {"criterion": "svd"}),
        ("threads: expected at least 1", {"threads": 0}),
        (r"pattern 're:\(': expected a regular expression", {"include": ["re:("]}),
    ]
    for message, options in wrong:  # when it is made, not at the first scan
        with pytest.raises(UsageError, match=message):
            sf.RescanCallback(every_steps=10, **options)
    with pytest.raises(UsageError, match="expected one process, found 2"):
        require_changeable(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]), processes=2)
