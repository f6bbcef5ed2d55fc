"""The command as a user starts it: alone, under torchrun, accelerate and deepspeed; every way to divide a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spectrum_fast.use.cli import main

from support.launching import environment, launch, needs, zero

LAUNCHERS = {
    "alone": [sys.executable, "-m", "spectrum_fast"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "spectrum_fast"],
    "accelerate": ["accelerate", "launch", "--cpu", "--num_processes", "1", "-m", "spectrum_fast"],
    "deepspeed": ["deepspeed", "--num_gpus", "2", "--module", "spectrum_fast"],
}


def run_command(config: dict[str, Any], folder: Path, cache: Path, launcher: str, *more: str) -> Any:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return subprocess.run(
        [*LAUNCHERS[launcher], "train", str(path), *more],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment(cache),
        stdin=subprocess.DEVNULL,
    )


def test_the_command_trains_and_says_so(
    configure: Callable[..., Any],
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    needs("trl")
    config = configure("llama", "spectrum", tmp_path, processes=1, name="run")["config"]
    done = run_command(config, tmp_path, shop / "cache", "alone", "--set", "spectrum.top_percent=100")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "method spectrum: " in done.stderr
    assert "1 process, shard none" in done.stderr
    assert "'loss': " in done.stderr
    assert "'trainable_percent': " in done.stderr
    assert (tmp_path / "run" / "run.json").exists()
    monkeypatch.setattr(sys, "argv", ["spectrum-fast", "train", str(tmp_path / "run.yaml")])
    with pytest.raises(SystemExit) as again:
        main()
    assert again.value.code == 2
    assert "found a finished run; choose another, or train over it with --overwrite" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["alone", "torchrun", "accelerate", "deepspeed"])
def test_every_launcher(configure: Callable[..., Any], shop: Path, tmp_path: Path, launcher: str):
    needs("trl", "deepspeed")
    processes = 2 if launcher in ("torchrun", "deepspeed") else 1
    config = configure("llama", "spectrum", tmp_path, processes=processes, name="run")["config"]
    config["deepspeed"] = None if launcher in ("alone", "accelerate") else zero(3)
    done = run_command(config, tmp_path, shop / "cache", launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stderr + done.stdout  # the deepspeed launcher joins them
    assert f"{processes} process" in said
    assert said.count("method spectrum: ") == 1  # one process speaks


@pytest.mark.slow
def test_every_way_to_divide_a_model(configure: Callable[..., Any], shop: Path, tmp_path: Path):
    needs("trl", "deepspeed")
    host = {"device": "cpu"}
    ways: dict[str, dict[str, Any]] = {
        "zero2": {"deepspeed": zero(2)},
        "zero3-offload": {"deepspeed": zero(3, offload_optimizer=host, offload_param=host)},
        "fsdp2": {"deepspeed": None, "fsdp": True, "fsdp_config": {"version": 2}},
        "ddp": {"deepspeed": None},
    }
    cases = [configure("llama", "spectrum", tmp_path, processes=2, name=name, **way) for name, way in ways.items()]
    outcomes = launch(cases, tmp_path, shop / "cache", processes=2)
    first = outcomes["ddp"]
    for name, outcome in outcomes.items():
        torch.testing.assert_close(torch.tensor(outcome.losses), torch.tensor(first.losses), rtol=2e-6, atol=0)
        assert outcome.run["optimizer_tensors"] == first.run["optimizer_tensors"], name
        before, after = first.tensors(), outcome.tensors()
        assert before.keys() == after.keys()
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, rtol=0, atol=1e-5)
