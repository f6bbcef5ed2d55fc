"""All singular values beside a scan: the same however the scan went, and never another scan's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.errors import ScanFileError, TensorError, UsageError
from spectrum_fast.measure.scoring.stored_spectra import as_stored, from_text, spectra_path, to_text
from spectrum_fast.measure.spectra.record import SingularValues


@pytest.fixture
def model(tmp_path: Path) -> Path:
    g = torch.Generator().manual_seed(0)
    weights = {f"layers.{i}.q.weight": torch.randn(30 + i, 40, generator=g) for i in range(4)}
    weights |= {f"layers.{i}.k.weight": torch.randn(210, 220, generator=g) for i in range(2)}
    (tmp_path / "model").mkdir()
    save_file(weights, tmp_path / "model" / "model.safetensors")
    return tmp_path / "model"


def test_they_lie_beside_the_scan_and_come_back(model: Path, tmp_path: Path) -> None:
    scan = sf.scan(model, out=tmp_path / "scan.json", spectra=True)
    stored = load_file(tmp_path / "scan.spectra.safetensors")
    assert set(stored) == {module.name for module in scan.modules}
    weights = {name: torch.from_numpy(value) for name, value in load_file(model / "model.safetensors").items()}
    again = sf.load_scan(tmp_path / "scan.json")
    assert again == scan
    for module in again.modules:
        kept = module.singular_values
        assert kept is not None
        assert stored[module.name].dtype == np.float32
        assert np.array_equal(np.stack([kept.values, kept.bounds]), stored[module.name])
        true = np.linalg.svd(weights[f"{module.name}.weight"].double().numpy(), compute_uv=False)
        assert bool((np.abs(kept.values - true) <= kept.bounds).all())
        assert 0 < kept.bounds.max() < 1e-4 * true[0]
    assert again.select(50, criterion="alpha") == scan.select(50, criterion="alpha")
    assert again.select(50, criterion="effective-rank").criterion == "effective-rank"


def test_an_interrupted_scan_keeps_the_same(model: Path, tmp_path: Path) -> None:
    sf.scan(model, out=tmp_path / "whole.json", spectra=True)

    def stop(step) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.scan(model, out=tmp_path / "scan.json", spectra=True, progress=stop)
    sf.scan(model, out=tmp_path / "scan.json", spectra=True)
    for suffix in (".json", ".spectra.safetensors"):
        assert (tmp_path / f"scan{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_those_of_another_scan_are_not_taken(model: Path, tmp_path: Path) -> None:
    sf.scan(model, out=tmp_path / "scan.json", spectra=True)
    sf.scan(model, out=tmp_path / "scan.json", criterion="mp")
    loaded = sf.load_scan(tmp_path / "scan.json")
    assert all(module.singular_values is None for module in loaded.modules)
    with pytest.raises(UsageError, match="--spectra"):
        loaded.select(criterion="alpha")


@pytest.mark.parametrize("damage", ["cut", "header", "length", "nan"])
def test_a_damaged_file_is_an_error(model: Path, tmp_path: Path, damage: str) -> None:
    sf.scan(model, out=tmp_path / "scan.json", spectra=True)
    path = spectra_path(tmp_path / "scan.json")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-100:]
    elif damage == "header":
        data[8] = ord("[")
    elif damage == "length":
        data[:8] = (1 << 60).to_bytes(8, "little")
    else:
        data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(ScanFileError, match=r"spectra\.safetensors: expected the spectra of"):
        sf.load_scan(tmp_path / "scan.json")


def test_bounds_hold_what_rounding_to_float32_takes() -> None:
    exact = SingularValues(np.array([1 + 1e-9, 0.1, 1e-50]), np.array([1e-12, 0.0, 0.0]))
    kept = as_stored(exact)
    assert bool((np.abs(kept.values - exact.values) + exact.bounds <= kept.bounds).all())
    again = from_text(to_text(kept))
    assert np.array_equal(again.values, kept.values)
    assert np.array_equal(again.bounds, kept.bounds)
    assert np.array_equal(as_stored(kept).bounds, kept.bounds)
    with pytest.raises(TensorError, match="beyond float32"):
        as_stored(SingularValues(np.array([1e39]), np.array([0.0])))


def test_without_a_file_they_are_in_memory(model: Path, tmp_path: Path) -> None:
    scan = sf.scan(model, spectra=True, include=["layers.0.q"])
    assert scan.modules[0].singular_values is not None
    assert not [name for name in os.listdir(tmp_path) if "spectra" in name]
