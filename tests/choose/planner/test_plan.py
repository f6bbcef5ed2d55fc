"""Choosing what is trained, fitting a limit, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast.choose.planner.memory import GIB, fit_percent, plan_memory, read_model_shape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.planner.states import compute_states
from spectrum_fast.choose.planner.trained import choose_trained, competing_groups
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import CheckpointError, SelectionError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning.run import scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("llama"), like="llama-3-8b", layers=4, scale=32).path


@pytest.fixture(scope="module")
def shape(folder: Path) -> ModelSkeleton:
    return read_model_shape(folder)


@pytest.fixture(scope="module")
def scores(folder: Path) -> Scan:
    return scan(folder)


def test_the_shape_of_a_model(shape: ModelSkeleton) -> None:
    full = choose_trained(shape, TrainingSetup(method="full"))
    assert full.count == full.trained_count == sum(p.numel() for p in shape.module.parameters())
    assert {len(members) for members in competing_groups(shape.module).values()} == {4}
    layer = sum(p.numel() for name, p in shape.module.named_parameters() if ".layers.0." in name)
    setup = TrainingSetup(method="full", zero=0, fsdp2=True, gpus=2, offload="all")
    states = compute_states(choose_trained(shape, setup), setup)
    assert states.gathered == 2 * (full.count - 4 * layer + 2 * layer)  # what is in no layer, and two layers, bfloat16
    assert (states.buffers, states.weights) == (4 * layer, 0)
    assert states.host == pytest.approx((4 + 4 + 8) * full.count / 2, rel=0.01)


def test_experts_are_fused_as_in_memory(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, like="mixtral-8x7b", layers=2, scale=64)
    moe = read_model_shape(tmp_path)
    fused = [p for name, p in moe.module.named_parameters() if name.endswith("experts.gate_up_proj")]
    assert [tuple(p.shape) for p in fused] == [(8, 2 * 14336 // 64, 64)] * 2
    plan = plan_memory(moe, TrainingSetup(seq_len=64), top_percent=50)
    assert plan.trained.count == sum(ref.element_count for ref in open_checkpoint(tmp_path).tensors)
    assert plan.activations.peak > plan.activations.saved > 0


def test_a_share_without_a_scan_takes_as_many_as_a_scan_would(scores: Scan, shape: ModelSkeleton) -> None:
    setup = TrainingSetup(seq_len=64)
    for percent in (25, 60):
        blind = plan_memory(shape, setup, top_percent=percent)
        seen = plan_memory(shape, setup, scan=scores, top_percent=percent)
        assert blind.trained.trained_count == seen.trained.trained_count
        assert blind.states == seen.states
    assert "no scan given" in blind.trained.assumption


def test_a_selection_of_another_model_is_refused(scores: Scan, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path, like="llama-3-8b", layers=2, scale=32).path
    small = read_model_shape(other)
    with pytest.raises(SelectionError, match="match no parameter"):
        plan_memory(small, TrainingSetup(), scan=scores)


def test_adapters_on_selected_modules_leave_embeddings_alone(scores: Scan, shape: ModelSkeleton) -> None:
    plan = plan_memory(shape, TrainingSetup(method="spectrum-qlora", zero=0, lora_rank=4), scan=scores)
    homes = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in plan.trained.trained}
    assert len(homes) == 7 * 1
    assert all(".lora_" in name for name in plan.trained.trained)
    rows = sum(sum(p.shape) for name, p in shape.module.named_parameters() if name.removesuffix(".weight") in homes)
    assert plan.setup.trained_dtype == "fp32"
    assert plan.trained.trained_count == 4 * rows


@pytest.mark.parametrize(
    ("method", "checkpointing"),
    [
        ("spectrum", "layer"),
        *(pytest.param(name, "none", marks=pytest.mark.slow) for name in ("spectrum", "spectrum-lora")),
    ],
)
def test_fit_is_the_largest_share_that_fits(tmp_path: Path, method: str, checkpointing: str) -> None:
    small = write_checkpoint(tmp_path, like="llama-3-8b", layers=3, scale=64).path
    shape = read_model_shape(small)
    setup = TrainingSetup(method=method, gpus=2, zero=2, seq_len=64, checkpointing=checkpointing)
    percents = [33.3334, 66.6667, 100.0]
    peaks = [plan_memory(shape, setup, top_percent=percent).peak for percent in percents]
    assert peaks == sorted(set(peaks))
    assert fit_percent(shape, setup, peaks[1]).top_percent == percents[1]
    assert fit_percent(shape, setup, peaks[1] - 1).top_percent == percents[0]
    with pytest.raises(SelectionError, match="the smallest share"):
        fit_percent(shape, setup, peaks[0] - 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zero": 1}, "unknown zero 1: expected one of 0, 2, 3"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"gpus": 0}, "gpus: expected a whole number of 1 or more"),
        ({"zero": 0, "offload": "optimizer"}, "is DeepSpeed's"),
        ({"zero": 2, "offload": "all"}, "use zero 3"),
        ({"lora_dropout": 1.0}, r"lora dropout: expected a number in \[0, 1\)"),
    ],
)
def test_bad_setups_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingSetup(**values)


def test_packed_checkpoints_and_parts_are_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"there is no config\.json"):
        read_model_shape(tmp_path)
    codes = {"a.weight": torch.zeros(4, 4, dtype=torch.int8), "a.weight_scale": torch.zeros(4)}
    save_file(codes, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"found a\.weight stored as"):
        read_model_shape(tmp_path)


def test_the_command(folder: Path, run_inside) -> None:
    done = run_inside("plan", folder, "--gpus", "2", "--zero", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    expected = plan_memory(read_model_shape(folder), TrainingSetup(gpus=2)).as_json()
    assert document == json.loads(json.dumps(expected))
    table = run_inside("plan", folder, "--fit", "4", "--zero", "0")
    assert table.returncode == 0
    for part in ("weights", "gradients", "optimizer", "activations", "buffers", "peak"):
        assert f"\n{part} " in table.stdout
    assert "top 100 %, fits in 4.00 GiB" in table.stdout
    assert document["per_gpu_bytes"]["peak"] < 4 * GIB


def test_the_file_of_a_run_is_planned(folder: Path, tmp_path: Path, run_inside) -> None:
    pytest.importorskip("trl")
    path = tmp_path / "run.yaml"
    text = f"model_name_or_path: {folder}\noutput_dir: out\ndataset_name: none\nmax_length: 64\n"
    path.write_text(text + "dtype: bfloat16\nspectrum: {method: spectrum, top_percent: 50}\n")
    done = run_inside("plan", path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["setup"]["dtype"], found["setup"]["autocast"], found["top_percent"]) == ("bf16", True, 50)
    assert found["setup"]["checkpointing"] == "layer"  # TRL's default
    trained, whole = found["trained_parameters"], found["parameters"]
    assert found["states_bytes"]["weights"] == 4 * trained + 2 * (whole - trained)
    assert found["states_bytes"]["moments"] == 8 * trained
    clash = run_inside("plan", path, "--zero", "2")
    assert clash.returncode == 2
    assert "--zero: " in clash.stderr
    path.write_text(text + "fsdp: true\nspectrum: {method: spectrum}\n")
    divided = json.loads(run_inside("plan", path, "--gpus", "2", "--json").stdout)
    assert divided["states_bytes"]["weights"] == pytest.approx(4 * whole / 2, rel=0.01)
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}')
    path.write_text(text + f"deepspeed: {tmp_path / 'zero.json'}\nspectrum: {{method: spectrum}}\n")
    away = json.loads(run_inside("plan", path, "--gpus", "2", "--json").stdout)
    assert (away["setup"]["zero"], away["setup"]["offload"]) == (3, "all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fit", "0.001"], "the smallest share"),
        (["--fit", "8", "--method", "full"], "takes no share"),
        (["--zero", "7"], "unknown zero 7"),
        (["--scan", "a.json", "--selection", "b.json"], "give one of them"),
    ],
)
def test_bad_commands_are_one_line(folder: Path, run_inside, arguments: list[str], message: str) -> None:
    done = run_inside("plan", folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
