"""The study of what is worth training: draws are matched, runs go on where they stopped, sentences add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="needs the training libraries")

import spectrum_fast as sf
from bench.study import page
from bench.study.__main__ import study
from bench.study.conditions import CONDITIONS, MATCHED, SEARCH, Matrix, choose, rates_of
from bench.study.fine_tune import Settings, batches, fit
from bench.study.page import matched_rank, text_section, verdicts
from bench.study.plan import DRAWS, SEEDS, chosen_rate, next_runs
from bench.study.results import finished_runs
from bench.study.signals import signals_of

from support.tiny_models import write_model

_SETTINGS = Settings(steps=3, batch=2, length=12, warm_steps=1, held_blocks=2, held_length=12)


def _matrices(layers: int = 30, types: int = 7) -> list[Matrix]:
    return [
        Matrix(
            f"model.layers.{layer}.type{kind}",
            f"type{kind}",
            layer,
            layers,
            {
                name: float((layer * 7 + kind * 5 + shift * 11) % 31)
                for shift, name in enumerate((*CONDITIONS, *SEARCH))
            },
        )
        for kind in range(types)
        for layer in range(layers)
    ]


def _profile(matrices: list[Matrix], names: list[str]) -> Counter[tuple[str, int]]:
    return Counter((matrix.type, matrix.fifth) for matrix in matrices if matrix.name in set(names))


@pytest.mark.parametrize("condition", MATCHED)
def test_a_matched_draw_has_the_types_and_the_depths_of_its_model(condition: str) -> None:
    matrices = _matrices()
    own = choose(matrices, condition, None, 0)
    draws = [choose(matrices, condition, draw, 0) for draw in range(DRAWS)]
    assert all(_profile(matrices, draw) == _profile(matrices, own) for draw in draws)
    assert len(own) == len(set(own)) == 49
    assert len({tuple(sorted(draw)) for draw in draws}) == DRAWS


def test_choices_are_those_of_the_product(tmp_path: Path) -> None:
    from bench.study.conditions import matrices_of

    folder = write_model(tmp_path / "model", "llama", layers=8)
    scans = {criterion: sf.scan(folder, criterion=criterion) for criterion in ("spectrum", "mp")}
    for criterion, scan in scans.items():
        ours = choose(matrices_of(scans), criterion, None, 0)
        assert sorted(ours) == sorted(scan.select(25, always="none").names)


def test_signals_are_the_gradient_the_move_and_the_weighted_spectrum(tmp_path: Path) -> None:
    """Against autograd on all batches at once, numpy's SVD, and training by hand."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "model", "llama", layers=2))
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "layers" in name]
    tokens = torch.randint(0, model.config.vocab_size, (400,), generator=torch.Generator().manual_seed(1))
    found = signals_of(model, names, tokens, _SETTINGS)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    rows = torch.cat(batches(tokens, replace(_SETTINGS, steps=10), 100)[:4])
    inputs: dict[str, torch.Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _, given, __, name=name: inputs.update({name: given[0].detach().double().flatten(0, 1)})
        )
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=rows, labels=rows).loss.backward()
    for name in names:
        weight = model.get_submodule(name).weight
        assert found["gradient"][name] == pytest.approx(float(weight.grad.norm()), rel=2e-2)  # sums in bfloat16
        scaled = weight.detach().double() * inputs[name].square().mean(0).sqrt()
        truth = sf.spectrum(scaled, method="svd", precision="float64")
        assert found["activation"][name] == pytest.approx(truth.snr, rel=2e-2)
    model.zero_grad()
    fit(model, batches(tokens, replace(_SETTINGS, steps=10), 100), 3e-4, replace(_SETTINGS, steps=10))
    for name in names:
        old = held[f"{name}.weight"]
        moved = model.get_submodule(name).weight.detach() - old
        assert found["delta"][name] == pytest.approx(float(moved.norm() / old.norm()), rel=1e-3)


def _finished(runs: list[Any], loss: float = 1.0) -> list[dict[str, Any]]:
    return [{**vars(run), "loss_new": loss + run.rate, "loss_old": loss, "trained_parameters": 5} for run in runs]


def test_the_plan_ends_with_every_condition_every_seed_and_every_draw() -> None:
    matrices, done = _matrices(), []
    while runs := list(next_runs("german", matrices, done)):
        done += _finished(runs)
    assert not list(next_runs("german", matrices, done))
    measured = [run for run in done if not run["chooses_rate"]]
    counts = Counter((run["condition"], run["draw"] is not None) for run in measured)
    assert counts == {
        **{(condition, False): len(SEEDS) for condition in (*CONDITIONS, *SEARCH)},
        **{(condition, True): DRAWS for condition in (*MATCHED, *SEARCH)},
    }
    assert {run["rate"] for run in measured if run["condition"] == "full"} == {min(rates_of("full"))}
    assert chosen_rate(done, "shakespeare", "full", matched=False) is None


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    material, results = tmp_path / "material", tmp_path / "results"
    write_model(material / "model", "llama", layers=8)
    (material / "german.txt").write_text("the old cat sees a small dog and runs in the red house on a tree " * 40)
    assert study("german", material, results, _SETTINGS, most=4) == 4
    first = {path: path.read_bytes() for path in (results / "german").glob("*.json")}
    again = tmp_path / "again"
    assert study("german", material, again, _SETTINGS, most=1) == 1
    assert study("german", material, results, _SETTINGS, most=2) == 2
    runs = finished_runs("german", results)
    assert len(runs) == 6
    assert all(path.read_bytes() == held for path, held in first.items())
    assert {run["changed_fraction"] > 0 for run in runs} == {True}
    (repeated,) = finished_runs("german", again)
    same = next(run for run in runs if (run["condition"], run["rate"]) == (repeated["condition"], repeated["rate"]))
    assert (same["loss_new"], same["loss_old"]) == (repeated["loss_new"], repeated["loss_old"])


def _run(condition: str, loss: float, seed: int = 0, draw: int | None = None) -> dict[str, Any]:
    return {
        "text": "german",
        "condition": condition,
        "seed": seed,
        "draw": draw,
        "rate": 1e-4,
        "chooses_rate": False,
        "loss_new": loss,
        "loss_old": 2.0,
        "trained_parameters": 10_000_000,
    }


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [(0.5, "**better than random"), (9.5, "**no better than random"), (30.0, "**worse than random")],
)
def test_the_verdict_is_that_of_the_protocol(loss: float, verdict: str) -> None:
    draws = [_run("spectrum", 1.0 + draw, draw=draw) for draw in range(DRAWS)]
    (sentence, _) = verdicts({"loss_new": 40.0, "loss_old": 2.0}, [*draws, _run("spectrum", loss)])
    assert verdict in sentence


def test_readme_states_a_verdict_once_all_draws_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draws = [_run("spectrum", 1.0 + draw, draw=draw) for draw in range(DRAWS)]
    runs = [*draws, _run("spectrum", 9.5), _run("mp", 1.0), _run("mp", 2.0, draw=0)]
    (tmp_path / "german").mkdir()
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "finished_runs", lambda _: runs[1:])
    assert "**not known yet**" in page.readme_sentence()
    monkeypatch.setattr(page, "finished_runs", lambda _: runs)
    verdict = "**no better than random at the same depth** (German: a lower loss than 11 of 20 matched draws)."
    assert page.readme_sentence().endswith(f"quarter of a type\nby `spectrum` was {verdict}")


def test_a_study_of_some_draws_has_no_verdict_and_states_its_n() -> None:
    runs = [_run("mp", 1.0), _run("mp", 2.0, draw=0), _run("mp", 0.5, draw=1), _run("full", 0.7)]
    assert matched_rank("mp", runs) == (1, 2)
    text = "\n".join(text_section("german", {"loss_new": 3.0, "loss_old": 2.0}, runs))
    assert "below 1 of the 2 draws that are finished (20 are planned)" in text
    assert "than random" not in text
    assert "| `mp` | 1 | 0.0001 | 10.0 M | 2.0000 | 0.0000 | 1 of 2 |" in text
