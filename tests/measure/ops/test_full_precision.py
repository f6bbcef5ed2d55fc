"""A program that allows fast, rough float32 products does not make a spectrum rough."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.measure.ops.full_precision import full_precision

from support.interpreter import INTERPRETED

pytestmark = pytest.mark.skipif(INTERPRETED, reason="no kernel in here")
BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


def settings() -> list[str]:
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture
def kept() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_what_was_allowed_is_allowed_again_afterwards(allowed: str) -> None:
    torch.set_float32_matmul_precision(allowed)
    before = settings()
    assert "tf32" in before
    inside = []

    @full_precision()
    def fails() -> None:
        inside.append(settings())
        with full_precision():
            pass
        inside.append(settings())
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert inside == [["ieee", "ieee"], ["ieee", "ieee"]]
    assert settings() == before
    assert torch.get_float32_matmul_precision() == allowed


@pytest.mark.usefixtures("kept")
def test_what_was_allowed_comes_back_when_the_last_thread_has_left() -> None:
    torch.set_float32_matmul_precision("high")
    before, inside, go_on = settings(), threading.Event(), threading.Event()

    @full_precision()
    def stay() -> None:
        inside.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        with full_precision():
            staying = pool.submit(stay)
            assert inside.wait(60)
        assert settings() == ["ieee", "ieee"], "another thread computes"
        go_on.set()
        staying.result()
    assert settings() == before


def test_the_usual_settings_are_left_alone() -> None:
    before = settings()
    with full_precision():
        assert settings() == before
    assert settings() == before


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_spectra_and_factors_do_not_change(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator().manual_seed(3)
    spikes = torch.randn(300, 2, generator=generator) @ torch.randn(2, 400, generator=generator)
    weight = (torch.randn(300, 400, generator=generator) + 30 * spikes).to(device)

    def results() -> list[object]:
        batch = sf.svd_lowrank([weight, weight + 1], 8)
        assert isinstance(batch, list)
        return [sf.spectrum(weight), *(found.s.tolist() for found in batch)]

    exact = results()
    torch.set_float32_matmul_precision("medium")
    assert results() == exact
