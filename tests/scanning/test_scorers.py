"""A scan by batches is the scan one by one; memory that runs out halves a batch and loses nothing."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.spectra import device_check
from spectrum_fast.measure.spectra.device_check import require_right_answers
from spectrum_fast.measure.spectra.engine import compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.scanning import scorers
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.scanning.scorers import Scorer, Together, make_compute

from support import coded_weights
from support.matrices import gaussian

CRITERION = find_criterion("spectrum")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts of two shapes in turns, one of them broken, a small matrix and a norm."""
    folder = tmp_path_factory.mktemp("mixed")
    generator = torch.Generator().manual_seed(4)
    weights = {}
    for expert in range(5):
        name = f"model.layers.0.mlp.experts.{expert}"
        weights[f"{name}.up_proj.weight"] = torch.randn(220, 300, generator=generator).to(torch.bfloat16)
        weights[f"{name}.down_proj.weight"] = torch.randn(300, 220, generator=generator).to(torch.bfloat16)
    weights["model.layers.0.mlp.experts.3.up_proj.weight"][2, 3] = torch.nan
    weights["model.layers.0.mlp.gate.weight"] = torch.randn(8, 300, generator=generator)
    save_file(weights, folder / "model.safetensors")
    return folder


def records(folder: Path, scorer: Scorer) -> dict[str, ModuleScore | ScanFailure]:
    plan = plan_scan(open_checkpoint(folder))
    found = {}
    with stream_weights(plan.weights, StreamOptions()) as stream:
        for loaded in stream:
            found |= {result.record.name: result.record for result in scorer.add(loaded)}
        found |= {result.record.name: result.record for result in scorer.finish()}
    assert len(found) == len(plan.weights)
    return found


def alone() -> Scorer:
    return Scorer(ScanOptions(device="cpu"))


@pytest.mark.parametrize(("most", "batch_bytes"), [(64, 1 << 40), (2, 1 << 40), (64, 1)])
def test_batches_come_to_what_single_matrices_come_to(
    mixed: Path, most: int, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "GPU_MOST_TOGETHER", most)
    monkeypatch.setattr(scorers, "CPU_BATCH_BYTES", batch_bytes)
    together = Together(ScanOptions(device="cpu"))
    expected = records(mixed, alone())
    for name, record in records(mixed, together).items():
        other = expected[name]
        assert type(record) is type(other), name
        if isinstance(record, ModuleScore) and isinstance(other, ModuleScore):
            bounds = (record.error_bound or 0.0) + (other.error_bound or 0.0)
            assert record.noise_free == other.noise_free
            assert record.rank_value == pytest.approx(other.rank_value, rel=bounds), name
            assert (record.shape, record.dtype, record.type) == (other.shape, other.dtype, other.type)
        else:
            assert record == other
    assert isinstance(expected["model.layers.0.mlp.experts.3.up_proj"], ScanFailure)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP8 in blocks, FP8 with one scale, and fused experts in MXFP4."""
    folder = tmp_path_factory.mktemp("quantised")
    weights = {}
    for layer, weight in enumerate(coded_weights.batch("fp8", 4, 230, 300)):
        name = f"model.layers.{layer}.mlp.up_proj"
        weights[f"{name}.weight"], weights[f"{name}.weight_scale_inv"] = weight.codes, weight.scale
        weights[f"model.layers.{layer}.mlp.down_proj.weight"] = weight.codes.T.contiguous()
        weights[f"model.layers.{layer}.mlp.down_proj.weight_scale"] = torch.tensor([0.01])
    experts = coded_weights.batch("mxfp4", 3, 208, 256)
    name = "model.layers.0.mlp.experts.down_proj"
    weights[f"{name}_blocks"] = torch.stack([weight.codes.unflatten(1, (-1, 16)) for weight in experts])
    weights[f"{name}_scales"] = torch.stack([weight.scale for weight in experts])
    weights[f"{name}_scales"][1, 7, 2] = 255
    save_file(weights, folder / "model.safetensors")
    return folder


def test_codes_wait_as_codes(quantised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def noted(weights: list[Codes], *arguments: object, **options: object) -> object:
        waited.extend(weights)
        return compute_spectra(weights, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scorers, "compute_spectra", noted)
    expected = records(quantised, alone())
    found = records(quantised, Together(ScanOptions(device="cpu")))
    assert len(waited) == len(found) == 11
    assert all(isinstance(weight, Codes) for weight in waited)
    for name, record in found.items():
        other = expected[name]
        if isinstance(other, ModuleScore):
            assert isinstance(record, ModuleScore), record
            bounds = (record.error_bound or 0.0) + (other.error_bound or 0.0)
            assert record.rank_value == pytest.approx(other.rank_value, rel=bounds), name
            assert (record.shape, record.dtype) == (other.shape, other.dtype)
            assert record.note.startswith("decoded from ")
            assert record.note.split(";")[0] == other.note.split(";")[0]
        else:
            assert record == other
    assert sum(isinstance(record, ScanFailure) for record in found.values()) == 1


def test_a_batch_that_does_not_fit_is_halved(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def small_memory(weights: list[torch.Tensor], *arguments: object, **options: object) -> object:
        sizes.append(len(weights))
        if len(weights) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute_spectra(weights, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scorers, "compute_spectra", small_memory)
    found = records(mixed, Together(ScanOptions(device="cpu")))
    assert sum(isinstance(record, ModuleScore) for record in found.values()) == 10
    assert sizes.count(1) == 11
    assert max(sizes) == 5


def test_a_cpu_that_has_no_memory_says_so(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> object:
        raise MemoryError

    monkeypatch.setattr(scorers, "compute_spectra", no_memory)
    found = records(mixed, Together(ScanOptions(device="cpu")))
    failed = {record.kind for record in found.values() if isinstance(record, ScanFailure)}
    assert failed == {"memory"}


def test_a_batch_that_cannot_be_put_together_is_the_failure_of_its_weights(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Together, "_allocate", lambda *_: None)
    found = records(mixed, Together(ScanOptions(device="cpu")))
    assert {record.kind for record in found.values() if isinstance(record, ScanFailure)} == {"memory"}
    assert not any(isinstance(record, ModuleScore) for record in found.values())


def test_a_batch_that_fails_is_halved_down_to_the_matrix_at_fault(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = records(mixed, Together(ScanOptions(device="cpu")))
    poisoned = "model.layers.0.mlp.experts.2.up_proj"
    culprit = load_file(mixed / "model.safetensors")[f"{poisoned}.weight"]

    def fails_with_one(weights: list[torch.Tensor], *arguments: object, **options: object) -> object:
        if any(torch.equal(weight, culprit) for weight in weights):
            raise ZeroDivisionError("float division by zero")
        return compute_spectra(weights, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scorers, "compute_spectra", fails_with_one)
    found = records(mixed, Together(ScanOptions(device="cpu")))
    failure = found.pop(poisoned)
    assert isinstance(failure, ScanFailure)
    assert (failure.kind, "ZeroDivisionError: float division" in failure.message) == ("error", True)
    assert found.keys() == expected.keys() - {poisoned}
    assert {name: type(record) for name, record in found.items()} == {name: type(expected[name]) for name in found}


def test_what_is_no_lack_of_memory_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object, **__: object) -> object:
        raise RuntimeError("an illegal instruction")

    monkeypatch.setattr(scorers, "compute_spectrum", broken)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        make_compute(ScanOptions(device="cpu"))(torch.ones(2, 2))


@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
def test_right_answers_are_asked_for_under_every_criterion(criterion: str) -> None:
    require_right_answers.__wrapped__("cpu", find_criterion(criterion))


def test_right_answers_are_asked_for_before_a_device_is_used(monkeypatch: pytest.MonkeyPatch) -> None:

    def a_little_wrong(weights: list[torch.Tensor], *arguments: object, **options: object) -> object:
        return exact([weight * (1 + 1e-3) for weight in weights], *arguments, **options)  # a score is not scale-free

    exact = device_check.compute_spectra
    monkeypatch.setattr(device_check, "compute_spectra", a_little_wrong)
    with pytest.raises(BackendUnavailableError, match="kernels are wrong here"):
        require_right_answers.__wrapped__("cpu", CRITERION)


def test_a_kernel_that_cannot_be_launched_refuses_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own errors are no RuntimeError."""
    error = pytest.importorskip("triton.runtime.errors").OutOfResources(300000, 232448, "shared memory")

    def not_launched(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(device_check, "compute_spectra", not_launched)
    with pytest.raises(BackendUnavailableError, match="a kernel failed on a plain matrix: out of resource"):
        require_right_answers.__wrapped__("cpu", CRITERION)


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device: str) -> None:
    with pytest.raises(BackendUnavailableError, match="usable CUDA devices"):
        ScanOptions(device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_batches_are_scored_beside_each_other(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on a stream of its own, and none before the device has proved itself; what they come to does not change."""
    together, streams = threading.Barrier(2, timeout=120), set()
    made: list[Together] = []
    proved: list[bool] = []

    def beside(weights: torch.Tensor, *arguments: object, **options: object) -> object:
        assert proved
        streams.add(torch.cuda.current_stream().cuda_stream)
        if len(weights) == 5:  # the two shapes of experts
            together.wait()
        return compute_spectra(weights, *arguments, **options)  # type: ignore[arg-type]

    def prove() -> None:
        while not any(len(scorer._scoring) > 1 for scorer in made):  # itself, and a batch that waits for it
            time.sleep(0.01)
        time.sleep(0.3)
        proved.append(True)

    expected = records(mixed, alone())
    monkeypatch.setattr(scorers, "compute_spectra", beside)
    monkeypatch.setattr(scorers, "GPU_MOST_TOGETHER", 5)
    made.append(Together(ScanOptions(device="cuda"), prepare=prove))
    found = records(mixed, made[0])
    assert len(streams) == 2
    assert 0 not in streams
    assert {type(record) for record in found.values()} == {ModuleScore, ScanFailure}
    for name, record in found.items():
        other = expected[name]
        assert type(record) is type(other), name
        if isinstance(record, ModuleScore) and isinstance(other, ModuleScore):
            bounds = (record.error_bound or 0.0) + (other.error_bound or 0.0)
            assert record.rank_value == pytest.approx(other.rank_value, rel=bounds), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpoint", ["mixed", "quantised"])
def test_a_scan_on_a_gpu_is_the_scan_on_the_cpu(checkpoint: str, request: pytest.FixtureRequest) -> None:
    import spectrum_fast as sf

    folder = request.getfixturevalue(checkpoint)
    on_cpu, on_gpu = sf.scan(folder, device="cpu"), sf.scan(folder, device="cuda")
    assert [module.name for module in on_cpu.modules] == [module.name for module in on_gpu.modules]
    for a, b in zip(on_cpu.modules, on_gpu.modules, strict=True):
        assert a.rank_value == pytest.approx(b.rank_value, rel=(a.error_bound or 0.0) + (b.error_bound or 0.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_has_no_memory_for_is_scored_on_the_cpu(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, empty = records(mixed, alone()), torch.empty

    def full(*shape: int, device: torch.device | None = None, **options: object) -> torch.Tensor:
        if device is not None and torch.device(device).type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*shape, device=device, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(scorers.torch, "empty", full)
    found = records(mixed, Together(ScanOptions(device="cuda")))
    for name, record in found.items():
        other = expected[name]
        assert type(record) is type(other), record
        if isinstance(record, ModuleScore) and isinstance(other, ModuleScore):
            assert "on the CPU, the GPU's memory did not hold it" in record.note
            bounds = (record.error_bound or 0.0) + (other.error_bound or 0.0)
            assert record.rank_value == pytest.approx(other.rank_value, rel=bounds), name


def test_cores_share_out_large_matrices_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {f"model.layers.{n}.mlp.up_proj.weight": gaussian(1100, 2000, seed=n).float() for n in range(3)}
    weights["model.layers.3.mlp.up_proj.weight"] = gaussian(64, 140_000).half()
    save_file(weights, tmp_path / "model.safetensors")
    plan = plan_scan(open_checkpoint(tmp_path))
    shared, reading = [], []

    def alone(matrix: Tensor, **options: object) -> Spectrum:
        shared.append((tuple(matrix.shape), torch.get_num_threads()))
        return compute_spectrum(matrix, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scorers, "compute_spectrum", alone)
    with thread_count(2):
        together = Together(ScanOptions(device="cpu"), threads=2)
        with closing(together), stream_weights(plan.weights, StreamOptions()) as stream:
            for loaded in stream:
                reading.append(torch.get_num_threads())
                list(together.add(loaded))
            list(together.finish())
        assert torch.get_num_threads() == 2
    assert shared == [((64, 140_000), 2)]
    assert reading == [1] * 4
