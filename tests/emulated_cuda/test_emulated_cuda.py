"""What the emulated device refuses and counts: a test on it can fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import spectrum_fast as sf

import emulated_cuda
from support import matrices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulated_cuda.ASKED_FOR, reason="run by tests/test_emulated_gpu.py in a process of its own"),
]


@pytest.fixture
def weight() -> torch.Tensor:
    return matrices.trained_like(300, 340, outliers=(3.0,), seed=1).bfloat16()


def test_a_tensor_of_the_host_does_not_meet_one_of_the_device() -> None:
    on_device = torch.ones(3, device="cuda")
    assert on_device.is_cuda
    assert str(on_device.device) == "cuda:0"
    with pytest.raises(RuntimeError, match="same device"):
        on_device + torch.ones(3)
    with pytest.raises(TypeError, match="can't convert cuda"):
        on_device.numpy()
    assert (on_device + 1.0).tolist() == [2.0] * 3


def test_a_wait_is_counted_and_can_be_refused() -> None:
    from emulated_cuda import waits

    on_device = torch.arange(4.0, device="cuda")
    waits.COUNTED.clear()
    float(on_device.sum())
    on_device[on_device > 1]
    assert waits.COUNTED == {"aten._local_scalar_dense": 1, "aten.index": 1}
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            on_device.cpu()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_copy_on_a_side_stream_is_not_there_before_it_was_waited_for() -> None:
    source = torch.ones(8).pin_memory()
    with torch.cuda.stream(torch.cuda.Stream()) as _:
        copy = torch.empty(8, device="cuda")
        copy.copy_(source, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
    with pytest.raises(AssertionError, match="before its copy was waited for"):
        copy + 1
    done.synchronize()
    assert copy.tolist() == [1.0] * 8


def test_streams_do_not_use_what_another_one_may_still_write() -> None:
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(first):
        made = torch.ones(8, device="cuda") + 1
        assert (made * 2).shape == (8,)
    with torch.cuda.stream(second):
        with pytest.raises(AssertionError, match="while another may write it"):
            made + 1
        second.wait_stream(first)
        assert (made + 1).tolist() == [3.0] * 8
    with torch.cuda.stream(first):
        made.add_(1)
        copied = torch.arange(3).pin_memory().to("cuda", non_blocking=True)
        assert copied.sum().tolist() == 3, "a stream keeps its order"
    assert made.tolist() == [3.0] * 8, "the host waited for the sum"
    with torch.cuda.stream(first):
        made.add_(1)
    with pytest.raises(AssertionError, match="while another may write it"):
        made.tolist()
    first.synchronize()
    assert made.tolist() == [4.0] * 8


@pytest.mark.parametrize("group", [1, 4])
def test_launches_of_a_reduction_are_those_that_the_model_counts(group: int) -> None:
    from bench.gpu import model
    from spectrum_fast.measure.ops.band import CARRIED
    from spectrum_fast.measure.ops.band.triton import reduce_in_groups

    from emulated_cuda import graphs

    for size in (140, 300):
        gram = torch.randn(1, size, size, generator=torch.Generator().manual_seed(3))
        gram, vectors = (gram @ gram.mT).cuda(), torch.ones(1, CARRIED, size, dtype=torch.float64).cuda()
        parts = model.stages((size, 340), 1, 2, model.DEVICES[1], model.Engine(deferred=group))
        parts = [part for part in parts if part.name in ("sweeps", "updates", "panels")]
        graphs.COUNT.launches = graphs.COUNT.operations = 0
        reduce_in_groups(gram, 32, vectors, group, vectors=True)
        for_the_scale = 1
        assert graphs.COUNT.launches == sum(part.launches for part in parts) + for_the_scale
        assert graphs.COUNT.operations == sum(part.operations for part in parts)


def test_a_graph_works_at_the_addresses_of_its_capture() -> None:
    kept, freed = torch.ones(4, device="cuda"), torch.ones(4, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = (kept + freed) * 2
    assert found.isnan().all(), "nothing is computed before a replay"
    kept.fill_(3.0)
    graph.replay()
    assert found.tolist() == [8.0] * 4
    del freed
    with pytest.raises(AssertionError, match="memory that has been freed"):
        graph.replay()


def test_a_graph_copies_nothing_from_the_host() -> None:
    source = torch.ones(4).pin_memory()
    with pytest.raises(AssertionError, match="again in every replay"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        source.to("cuda", non_blocking=True)


def test_replays_are_proved_before_they_are_used(weight: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the check of a device; they give the launches' bits there and are refused where they do not."""
    from spectrum_fast.measure.ops import device_graph
    from spectrum_fast.measure.scoring.criteria import find_criterion
    from spectrum_fast.measure.spectra import device_check
    from spectrum_fast.measure.spectra.engine import compute_spectra

    from emulated_cuda import graphs

    criterion, proved = find_criterion("spectrum"), set()
    monkeypatch.setattr(device_graph, "_proved", proved)
    on_device = weight.cuda()
    expected = compute_spectra([on_device], criterion)
    with monkeypatch.context() as broken:
        broken.setattr(graphs.CUDAGraph, "replay", lambda graph: graph.steps[-1]())
        with pytest.warns(UserWarning, match="CUDA graphs are not used"):
            device_check.require_right_answers.__wrapped__("cuda", criterion)
    assert not proved
    device_check.require_right_answers.__wrapped__("cuda", criterion)
    assert proved == {on_device.device}
    counts = []
    for _ in range(4):
        graphs.COUNT.launches = 0
        with device_graph.recording():
            assert compute_spectra([on_device], criterion) == expected
        counts.append(graphs.COUNT.launches)
    assert counts[2] == counts[3] < counts[0] / 4, "a replay launches nothing"
    graphs.COUNT.launches = 0
    compute_spectra([on_device], criterion)
    assert graphs.COUNT.launches == counts[0], "outside a scan nothing is recorded, and kept"
    device_graph.RECORDINGS.forget()


def test_a_value_in_doubt_is_refined_from_what_the_device_left(weight: torch.Tensor) -> None:
    """By launches, recorded, and replayed alike; the matrix beside it stays as it is alone."""
    from spectrum_fast.measure.ops import device_graph
    from spectrum_fast.measure.scoring.criteria import find_criterion
    from spectrum_fast.measure.spectra.engine import compute_spectra

    criterion, exact = find_criterion("spectrum"), sf.spectrum(weight, method="svd")
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    place = int((s - exact.threshold).abs().argmin())
    for _ in range(3):
        s[place] = sf.spectrum(((u * s) @ vt).float(), method="svd").threshold * (1 + 2e-7)
    doubtful = ((u * s) @ vt).float()
    batch = [doubtful.cuda(), weight.float().cuda()]
    calls: dict[str, Any] = {"method": "band", "precision": "float32"}
    (alone,) = compute_spectra(batch[1:], criterion, **calls)
    exact = sf.spectrum(doubtful, method="svd")
    with device_graph.use_graphs(True):
        for _ in range(3):
            refined, other = compute_spectra(batch, criterion, **calls)
            assert (refined.errors.n_undecided, refined.n_signal) == (0, exact.n_signal)
            assert refined.error_bound <= 2e-4
            assert abs(refined.snr / exact.snr - 1) <= refined.error_bound
            assert refined.errors.q25 <= 0.01 * other.errors.q25
            assert refined.errors.q75 <= 0.01 * other.errors.q75
            assert abs(other.snr / alone.snr - 1) <= alone.error_bound, "nothing in the one beside it moved"
    device_graph.RECORDINGS.forget()


def test_auto_is_a_gpu_whose_answers_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrum_fast.measure.ops.sturm import triton as sturm
    from spectrum_fast.measure.spectra.device_check import require_right_answers
    from spectrum_fast.scanning.options import ScanOptions

    from emulated_cuda import kernels

    def miscount(rows: torch.Tensor, x: torch.Tensor, counts: torch.Tensor, *of: int) -> None:
        kernels._count(rows, x, counts, *of)
        counts.sub_(9).clamp_(min=0)

    assert ScanOptions().device == "cuda"
    assert ScanOptions(ray="local").device == "cpu", "another machine's is not asked from here"
    require_right_answers.cache_clear()
    monkeypatch.setattr(sturm, "_count_kernel", kernels._Kernel(miscount))
    with pytest.warns(UserWarning, match="the CPU is taken: .* its kernels are wrong here"):
        assert ScanOptions().device == "cpu"
    require_right_answers.cache_clear()


def test_a_device_whose_update_of_several_panels_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrum_fast.errors import BackendUnavailableError
    from spectrum_fast.measure.ops.band import triton as band
    from spectrum_fast.measure.scoring.criteria import find_criterion
    from spectrum_fast.measure.spectra.device_check import require_right_answers

    def update_a_little_less(workspace: Any, index: int) -> None:
        kept = workspace.scale.clone()
        workspace.scale.mul_(1 - 1e-3)
        update(workspace, index)
        workspace.scale.copy_(kept)

    update = band.device_kernels.update
    monkeypatch.setattr(band.device_kernels, "update", update_a_little_less)
    with pytest.raises(BackendUnavailableError, match="whichever way a matrix is updated"):
        require_right_answers.__wrapped__("cuda", find_criterion("spectrum"))


def test_where_memory_ends_a_matrix_goes_to_the_cpu(weight: torch.Tensor, tmp_path) -> None:
    """A real lack of memory, wherever it comes: whole batches, half ones, one matrix."""
    from safetensors.torch import save_file

    from emulated_cuda.memory import LEDGER

    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4)]
    save_file({name: weight + layer for layer, name in enumerate(names)}, tmp_path / "model.safetensors")
    expected = sf.scan(tmp_path, device="cpu")
    LEDGER.forget_the_most()
    sf.scan(tmp_path, device="cuda")
    most = LEDGER.most
    reasons = set()
    try:
        for part in (0.7, 0.5, 0.35, 0.25):
            LEDGER.limit = int(part * most)
            found = sf.scan(tmp_path, device="cuda")
            assert not found.failures
            for a, b in zip(expected.modules, found.modules, strict=True):
                assert a.rank_value == pytest.approx(b.rank_value, rel=(a.error_bound or 0) + (b.error_bound or 0))
            reasons |= {"on the CPU" in module.note for module in found.modules}
    finally:
        LEDGER.limit = None
    assert LEDGER.alive < 0.1 * most
    assert reasons == {True, False}
