"""Bytes of state to the byte against the tensors of two real DeepSpeed processes, ZeRO-2 and ZeRO-3."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed", reason="needs the training libraries")

from spectrum_fast.choose.planner.memory import read_model_shape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.planner.states import compute_states
from spectrum_fast.choose.planner.trained import as_trained

from support.launching import environment
from support.planner_models import make_model, save_model

WORKER = Path(__file__).with_name("deepspeed_worker.py")
HIDDEN = 64
TRAINED = ("embed_tokens", "layers.1.", "layers.2.mlp.down_proj", "layers.3.input_layernorm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An odd vocabulary, so that padding shows."""
    return save_model(make_model("Llama", vocab_size=255), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, int]]]:
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("out")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"),
            *map(str, (WORKER, folder, out)),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        env=environment(tmp_path_factory.mktemp("cache")) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("stage", [2, 3])
def test_states_are_deepspeeds_own(measured: list, folder: Path, stage: int, dtype: str) -> None:
    shape = read_model_shape(folder)
    parameters = dict(shape.module.named_parameters())
    names = {name for name in parameters if any(part in name for part in TRAINED)}
    assert len(names) > 3
    setup = TrainingSetup(method="spectrum", gpus=2, zero=stage, dtype=dtype)
    states = compute_states(as_trained(shape, setup, names), setup)
    for found in measured:
        mine = found[f"{stage} {dtype}"]
        assert states.weights == mine["weights"]
        assert states.master == mine["master"]
        assert states.moments == mine["moments"]
        assert states.gradients == mine["gradients"]
        assert mine["reselection_refused"]  # spectrum_fast.use.training.trainable: the partitions are laid out already
        if stage == 3:
            assert states.buffers == mine["buffer"]
            whole = sum(p.numel() for p in parameters.values() if p.numel() <= 10 * HIDDEN) * setup.element_bytes
            assert whole == mine["kept_whole"]


def test_a_larger_share_never_needs_fewer_bytes(folder: Path) -> None:
    shape = read_model_shape(folder)
    for stage in (0, 2, 3):
        setup = TrainingSetup(gpus=4, zero=stage)
        sizes = []
        for layers in range(5):
            parameters = [name for name, _ in shape.module.named_parameters()]
            names = {name for name in parameters if f"layers.{layers}" > name.partition(".")[2]} | {"lm_head.weight"}
            states = compute_states(as_trained(shape, setup, names), setup)
            sizes.append(states.weights + states.gradients + states.master + states.moments)
        assert sizes == sorted(sizes)
