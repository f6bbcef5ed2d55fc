"""Reading, compiling and scoring take as long as the longest of them, whatever their ratio, in bounded memory.

The storage gives so many bytes a second and the device takes so long for a matrix, by a clock of their own; everything
between them is real.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, StreamStatistics
from spectrum_fast.scanning import scorers
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.scorers import Together
from spectrum_fast.scanning.scoring import score_weights

from support.marks import slow
from support.virtual_clock import IS_POSSIBLE, Storage, VirtualClock

WEIGHTS = 64
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
on_both = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="needs /proc")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Sequence[WeightPlan]:
    """Two shapes in turns, four times the smallest ring."""
    folder = tmp_path_factory.mktemp("overlap")
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"layers.{i:02d}.up.weight": torch.randn(112, 128 + 32 * (i % 2), generator=generator) for i in range(WEIGHTS)
    }
    save_file(weights, folder / "model.safetensors")
    return plan_scan(open_checkpoint(folder)).weights


@dataclass
class Run:
    """A scan on the clock: what it may take, and what was seen of it."""

    plans: Sequence[WeightPlan]
    device: str
    read_seconds: float
    compute_seconds: float
    compile_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    most_ahead_bytes: int = 0
    results: list[ModuleResult] = field(default_factory=list)
    statistics: StreamStatistics = field(default_factory=StreamStatistics)
    batch_bytes: int = scorers.CPU_BATCH_BYTES

    def go(self, monkeypatch: pytest.MonkeyPatch) -> Run:
        total, scored = sum(plan.nbytes for plan in self.plans), 0
        one_device = threading.Lock()
        with VirtualClock() as clock:
            storage = Storage(clock, total / self.read_seconds)

            def timed(weights: Sequence[Tensor], *arguments: object, **options: object) -> object:
                nonlocal scored
                self.most_ahead_bytes = max(self.most_ahead_bytes, storage.read_bytes - scored)
                with one_device:  # which two batches share
                    clock.sleep(self.compute_seconds * len(weights) / WEIGHTS)
                scored += sum(weight.nbytes for weight in weights)
                self.most_ahead_bytes = max(self.most_ahead_bytes, storage.read_bytes - scored)
                return compute_spectra(weights, *arguments, **options)  # type: ignore[arg-type]

            monkeypatch.setattr("spectrum_fast.read.stream.weights.STRETCH_BYTES", 1)  # a weight each
            monkeypatch.setattr(os, "preadv", storage.preadv)
            monkeypatch.setattr(scorers, "compute_spectra", timed)
            monkeypatch.setattr(scorers, "batch_bytes_on", lambda _: self.batch_bytes)
            together = Together(
                ScanOptions(device=self.device),
                prepare=lambda: clock.sleep(self.compile_seconds),
                plans=self.plans,
            )
            options = StreamOptions(buffer_bytes=1 << 20, device=self.device, threads=3)
            self.statistics = score_weights(self.plans, together, options, self.results.append)
            self.elapsed_seconds = clock.now
        assert len(self.results) == WEIGHTS
        assert self.statistics.bytes_from_storage == storage.read_bytes >= total
        return self


@on_both
@pytest.mark.parametrize("seconds", [(100.0, 10.0), (100.0, 100.0), (10.0, 100.0), *slow((100.0, 70.0), (70.0, 100.0))])
def test_it_takes_as_long_as_the_longer_of_reading_and_scoring(
    plans: Sequence[WeightPlan], device: str, seconds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(plans, device, *seconds).go(monkeypatch)
    assert max(seconds) <= run.elapsed_seconds * (1 + 1e-9)
    assert run.elapsed_seconds <= 1.15 * max(seconds)
    assert run.statistics.buffer_peak_bytes <= run.statistics.buffer_bytes == 1 << 20


@on_both
def test_weights_are_read_while_kernels_are_compiled(
    plans: Sequence[WeightPlan], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(plans, device, read_seconds=50.0, compute_seconds=50.0, compile_seconds=40.0).go(monkeypatch)
    assert 90.0 <= run.elapsed_seconds <= 1.05 * 90.0


def test_memory_is_bounded_where_scoring_never_comes_to_an_end(
    plans: Sequence[WeightPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(plans, "cpu", read_seconds=1e-3, compute_seconds=100.0, batch_bytes=1 << 20).go(monkeypatch)
    found = run.statistics
    assert run.most_ahead_bytes <= found.buffer_bytes + 2 * run.batch_bytes < 0.8 * found.bytes_from_storage


@on_both
def test_a_device_that_computes_wrong_is_refused_before_a_weight_is_scored(
    plans: Sequence[WeightPlan], device: str
) -> None:
    def refuse() -> None:
        raise BackendUnavailableError("its kernels are wrong here")

    together = Together(ScanOptions(device=device), prepare=refuse)
    results: list[ModuleResult] = []
    with pytest.raises(BackendUnavailableError, match="wrong here"):
        score_weights(plans, together, StreamOptions(device=device, buffer_bytes=1 << 20), results.append)
    assert results == []
