"""The page is given the numbers of other criteria, and the tails that they are fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.measure.scoring.criteria import quantities_of
from spectrum_fast.use.report.html.payload import build_payload, make_labels

from support import matrices

NAMES = ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tensors = {f"{name}.weight": matrices.trained_like(60, 90, seed=place).float() for place, name in enumerate(NAMES)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_with_all_singular_values(model: Path) -> None:
    scan = sf.scan(model, spectra=True)
    (page,) = build_payload([scan], top_percent=25, labels=["a"])["scans"]
    for name, column in page["quantities"].items():
        expected = [quantities_of(scan.module(module))[name] for module in page["name"]]
        assert column == pytest.approx(expected, rel=1e-6)
    assert {"kappa", "stable-rank", "alpha", "effective-rank", "energy"} <= page["quantities"].keys()
    for module, (ranks, values, (alpha, least, size)) in zip(page["name"], page["tails"], strict=True):
        stored = scan.module(module).singular_values.values  # type: ignore[union-attr]
        assert (ranks[0], ranks[-1]) == (1, 60)
        assert values == pytest.approx([stored[int(rank) - 1] for rank in ranks], rel=1e-6)
        assert alpha == pytest.approx(page["quantities"]["alpha"][page["name"].index(module)], rel=1e-6)
        assert (stored >= least * (1 - 1e-6)).sum() == size


def test_without_them_and_of_a_difference(model: Path, tmp_path: Path) -> None:
    (page,) = build_payload([sf.scan(model)], top_percent=25, labels=["a"])["scans"]
    assert page["tails"] is None
    assert "alpha" not in page["quantities"]
    zero = {f"{name}.weight": torch.zeros(60, 90) for name in NAMES}
    (tmp_path / "base").mkdir()
    save_file(zero, tmp_path / "base" / "model.safetensors")
    difference = sf.scan(model, minus=str(tmp_path / "base"))
    assert make_labels([difference], ["x"]) == [f"{model.name} minus base"]
