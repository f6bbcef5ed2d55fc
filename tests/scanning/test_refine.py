"""A cut that float32 does not decide is decided in float64, and nothing else is read twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.scanning.refine import doubtful_modules

from support import truth

_SIDE, _LONG = 256, 320


def close_pair(folder: Path, gap: float) -> dict[str, torch.Tensor]:
    """Four layers of one type: one clearly best, two whose scores differ by ``gap``, one clearly worst."""
    rng = np.random.default_rng(7)
    left, right = (
        np.linalg.qr(rng.standard_normal((_SIDE, _SIDE)))[0],
        np.linalg.qr(rng.standard_normal((_LONG, _SIDE)))[0],
    )
    values = np.sort(rng.uniform(0.2, 1.0, _SIDE))
    weights = {}
    for layer, strength in enumerate((1.5, 1.0, 1.0 - gap, 0.98)):
        s = values.copy()
        s[-40:] *= strength  # what lies above the threshold; the quartiles stay where they are
        s[-1] = 2.0  # and so does the largest
        weights[f"model.layers.{layer}.mlp.up_proj.weight"] = torch.from_numpy((left * s) @ right.T).to(torch.float32)
        left, right = np.roll(left, 1, axis=0), np.roll(right, 3, axis=0)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return weights


def exact_order(weights: dict[str, torch.Tensor]) -> list[str]:
    scores = {name.removesuffix(".weight"): truth.exact(weight).snr for name, weight in weights.items()}
    return sorted(scores, key=lambda name: -scores[name])


def test_an_undecided_cut_is_decided_as_float64_decides_it(tmp_path: Path) -> None:
    weights = close_pair(tmp_path / "model", 2e-7)
    plain = sf.scan(tmp_path / "model", top_percent=None)
    pair = {"model.layers.1.mlp.up_proj", "model.layers.2.mlp.up_proj"}
    assert set(doubtful_modules(plain, 50)) == pair
    assert "refined" not in plain.provenance

    refined = sf.scan(tmp_path / "model", top_percent=50)
    assert set(refined.provenance["refined"]) == pair
    for module in refined.modules:
        if module.name in pair:
            assert "the cut at 50 % was undecided" in module.note
            assert module.method in ("band-float64", "svd-float64")
            assert module.error_bound is not None
            assert module.error_bound <= 1e-7
        else:
            assert module == plain.module(module.name)
    selection = refined.select(50, always="none")
    assert [module.name for module in selection.modules] == exact_order(weights)[:2]


def test_a_decided_cut_reads_nothing_twice(tmp_path: Path) -> None:
    close_pair(tmp_path / "model", 0.05)
    scan = sf.scan(tmp_path / "model", top_percent=50)
    assert "refined" not in scan.provenance
    assert scan.modules == sf.scan(tmp_path / "model", top_percent=None).modules


@pytest.mark.parametrize("named", [{"method": "band"}, {"precision": "float32"}])
def test_what_is_asked_for_by_name_is_not_replaced(tmp_path: Path, named: dict[str, str]) -> None:
    close_pair(tmp_path / "model", 2e-7)
    assert "refined" not in sf.scan(tmp_path / "model", top_percent=50, **named).provenance


def test_a_cut_is_that_of_a_type_in_its_tower() -> None:
    towers = {"model.language_model.layers": (4.0, 3.0, 2.0, 1.0), "model.visual.blocks": (9.0, 5.0, 5.0 - 1e-6, 0.5)}
    modules = [
        ModuleScore(name=f"{path}.{place}.mlp.up_proj", type="mlp.up_proj", snr=score, error_bound=1e-5)
        for path, scores in towers.items()
        for place, score in enumerate(scores)
    ]
    doubtful = doubtful_modules(sf.Scan("m", "spectrum", tuple(modules)), 50)
    assert doubtful == ["model.visual.blocks.1.mlp.up_proj", "model.visual.blocks.2.mlp.up_proj"]


def test_equal_scores_stay_a_tie_and_are_said_to_be_one(tmp_path: Path) -> None:
    close_pair(tmp_path / "model", 0.0)
    selection = sf.scan(tmp_path / "model", top_percent=50).select(50, always="none")
    assert selection.groups[0].undecided
