"""Scores do not depend on how a scan was run: the same bits where the same arithmetic is done, within bounds elsewhere.

One checkpoint with a matrix for every method is scanned under other thread counts, file layouts, buffers, sources,
batches, devices and process counts, and compared with one scan of it.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import spectrum_fast as sf
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.scanning import scorers
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.scanning.scorers import Together

from support import families, matrices
from support.file_server import FileServer
from support.long_scans import command, end, environment, free_port, start
from support.marks import slow

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
}
PERCENTS = (25, 50, 75)
BLOCK = (128, 128)


def of_family(name: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    matrix = families.FAMILIES[name](np.random.default_rng([seed, *name.encode()]), rows, columns)
    return torch.from_numpy(matrix / np.abs(matrix).max())


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Weights that take every method, packed and fused ones, and one that fails."""
    layer = "model.layers.{}.{}.weight".format
    weights = {layer(n, "mlp.up_proj"): matrices.trained_like(420, 700, seed=n).bfloat16() for n in range(4)}
    weights |= {
        layer(n, "mlp.down_proj"): matrices.trained_like(1100, 770, (400.0, 300.0), n).bfloat16() for n in range(2)
    }
    weights |= {layer(n, "self_attn.o_proj"): of_family("near_threshold", 200, 260, n).float() for n in range(4)}
    weights[layer(0, "self_attn.q_proj")] = of_family("rank_deficient", 200, 230).float()
    weights[layer(1, "self_attn.q_proj")] = of_family("graded_rows", 200, 230)
    weights[layer(2, "self_attn.q_proj")] = of_family("clustered", 200, 230).half()
    weights[layer(3, "self_attn.q_proj")] = of_family("heavy_tailed", 60, 230).half()
    weights["model.layers.0.mlp.experts.gate_up_proj"] = torch.stack(
        [of_family("spiked", 200, 220, n).bfloat16() for n in range(3)]
    )
    name = layer(0, "self_attn.k_proj")
    codes, scales = families.to_codes(of_family("power_law", 256, 260), torch.float8_e4m3fn, BLOCK)
    weights |= {name: codes, f"{name}_scale_inv": scales}
    weights[layer(0, "self_attn.v_proj")] = torch.full((30, 40), float("nan"))
    return weights


def write_file(path: Path, tensors: Sequence[tuple[str, Tensor]]) -> None:
    """A safetensors file with the tensors in this order, which the library's own writer chooses by itself."""
    header: dict[str, object] = {}
    position = 0
    for name, tensor in tensors:
        offsets = [position, position := position + tensor.nbytes]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in tensors:
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def write_shards(folder: Path, tensors: Sequence[tuple[str, Tensor]], count: int) -> Path:
    """The tensors dealt out to shards in this order, with an index."""
    folder.mkdir()
    if count == 1:
        write_file(folder / "model.safetensors", tensors)
        return folder
    weight_map = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        write_file(folder / file, tensors[shard::count])
        weight_map |= dict.fromkeys((name for name, _ in tensors[shard::count]), file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def shuffled(tensors: dict[str, Tensor], seed: int) -> list[tuple[str, Tensor]]:
    order = np.random.default_rng(seed).permutation(len(tensors))
    return [list(tensors.items())[place] for place in order]


@pytest.fixture(scope="module")
def model(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("one") / "model", list(tensors.items()), 1)


@pytest.fixture(scope="module")
def one(model: Path) -> sf.Scan:
    """The scan that all others are compared with."""
    scan = sf.scan(model, threads=1)
    methods = {module.method for module in scan.modules}
    assert methods == {"band-float32", "band-float32-rotated", "band-float64", "svd-float64"}
    assert [failure.kind for failure in scan.failures] == ["values"]
    assert len(scan.modules) == 18
    return scan


def assert_same_bits(scan: sf.Scan, one: sf.Scan) -> None:
    """All that is said of any tensor is the same, to the last bit."""
    assert scan.modules == one.modules
    assert [(f.name, f.kind, f.shape, f.dtype) for f in scan.failures] == [
        (f.name, f.kind, f.shape, f.dtype) for f in one.failures
    ]
    assert (scan.ties, scan.skipped) == (one.ties, one.skipped)
    assert scan.provenance.get("refined") == one.provenance.get("refined")


def assert_within_bounds(scan: sf.Scan, one: sf.Scan) -> None:
    """Scores may be of the same matrix by their bounds, and selections differ only where a cut is undecided."""
    assert_modules_within_bounds(scan.modules, one.modules)
    for percent in PERCENTS:
        pair = [each.select(percent, allow_incomplete=True) for each in (scan, one)]
        for group, other in zip(pair[0].groups, pair[1].groups, strict=True):
            taken = [{module.name for module in each.modules if module.group == group.name} for each in pair]
            assert taken[0] == taken[1] or (group.undecided and other.undecided), group.name


def assert_modules_within_bounds(modules: Sequence[ModuleScore], others: Sequence[ModuleScore]) -> None:
    assert [module.name for module in modules] == [other.name for other in others]
    for module, other in zip(modules, others, strict=True):
        assert (module.shape, module.dtype, module.noise_free) == (other.shape, other.dtype, other.noise_free)
        (low, high), (least, most) = module.score_range, other.score_range
        assert low <= most, module.name
        assert least <= high, module.name


# --- the same arithmetic: the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "shards"), [(2, 3), (3, 19)])
def test_order_and_number_of_files_change_no_bit(
    tensors: dict[str, Tensor], one: sf.Scan, tmp_path: Path, seed: int, shards: int
) -> None:
    folder = write_shards(tmp_path / "model", shuffled(tensors, seed), shards)
    assert_same_bits(sf.scan(folder, threads=1), one)


@pytest.mark.parametrize(
    "reading",
    [{"buffer_gib": 1 / 128}, {"direct_io": "auto"}, {"direct_io": "auto", "buffer_gib": 1 / 128}],
    ids=str,
)
def test_the_way_of_reading_changes_no_bit(model: Path, one: sf.Scan, reading: dict[str, object]) -> None:
    scan = sf.scan(model, threads=1, **reading)  # type: ignore[arg-type]
    assert scan.run["weights_in_blocks"] == 0
    assert_same_bits(scan, one)


def test_the_web_changes_no_bit(model: Path, one: sf.Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        assert_same_bits(sf.scan(f"{server.url}/m", threads=1), one)


def test_a_second_scan_is_the_first_to_the_byte(model: Path, one: sf.Scan, tmp_path: Path) -> None:
    one.save(tmp_path / "one.json")
    sf.scan(model, threads=1, out=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_two_processes_change_no_byte(model: Path, one: sf.Scan, tmp_path: Path) -> None:
    one.save(tmp_path / "one.json")
    out = tmp_path / "scan.json"
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in (0, 1)]
    processes = [start(model, out, "--quiet", "--method", "auto", variables=variables) for variables in ranks]
    ends = [end(process) for process in processes]
    assert [(returned, stdout) for returned, stdout, _ in ends] == [(1, ""), (0, "")]  # rank 0 tells of the NaN
    assert out.read_bytes() == (tmp_path / "one.json").read_bytes()


@pytest.mark.parametrize("count", slow(1, 4))
def test_torchrun_changes_no_byte(model: Path, one: sf.Scan, tmp_path: Path, count: int) -> None:
    one.save(tmp_path / "one.json")
    out = tmp_path / "scan.json"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    launcher += ["--master-port", str(free_port())]
    arguments = command(model, out, "--quiet", "--method", "auto", "--exclude", "*v_proj")[1:]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr
    assert sf.load_scan(out).modules == one.modules


# --- other arithmetic: within the bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_scores_within_their_bounds(model: Path, one: sf.Scan, threads: int) -> None:
    assert_within_bounds(sf.scan(model, threads=threads), one)


@pytest.mark.parametrize("direct_io", ["off", *slow("auto")])
def test_blocks_change_scores_within_their_bounds(model: Path, one: sf.Scan, direct_io: str) -> None:
    scan = sf.scan(model, threads=1, buffer_gib=1 / 1024, direct_io=direct_io)
    assert scan.run["weights_in_blocks"] == 6
    assert_within_bounds(scan, one)


@pytest.mark.parametrize(("seed", "most"), [(0, 64), (5, 2)])
def test_batches_on_the_way_of_a_device_change_scores_within_their_bounds(
    tensors: dict[str, Tensor], one: sf.Scan, tmp_path: Path, seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine in the order of steps of a GPU, on tensors of the CPU, whatever order weights come in."""
    folder = write_shards(tmp_path / "model", shuffled(tensors, seed), 2)
    monkeypatch.setattr(scorers, "GPU_MOST_TOGETHER", most)
    together = Together(ScanOptions(device="cpu"))
    found: list[ModuleScore] = []
    weights = plan_scan(open_checkpoint(folder)).weights
    with use_backend(MODEL), stream_weights(weights, StreamOptions()) as stream:
        for loaded in stream:
            found += _scores(together.add, loaded)
        found += _scores(together.finish)
    by_name = {module.name: module for module in found}
    assert sum(module.note.count("batch of") for module in found) >= 8
    assert_modules_within_bounds([by_name[module.name] for module in one.modules], one.modules)


def _scores(step: Callable[..., Iterator[scorers.ModuleResult]], *arguments: object) -> list[ModuleScore]:
    return [result.record for result in step(*arguments) if isinstance(result.record, ModuleScore)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
@pytest.mark.parametrize("seed", [0, 5])
def test_a_gpu_changes_scores_within_their_bounds(
    tensors: dict[str, Tensor], tmp_path: Path, criterion: str, seed: int
) -> None:
    folder = write_shards(tmp_path / "model", shuffled(tensors, seed), 2)
    on_cpu, on_gpu = (sf.scan(folder, criterion=criterion, device=device) for device in ("cpu", "cuda"))
    assert_within_bounds(on_gpu, on_cpu)
