"""A process of a ZeRO-3 training killed, in a step and in a save: the run ends, says how to go on, and does.

Every case is two trainings of two processes (half a minute); ``pytest -m slow`` runs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from support.launching import environment, needs

STRUCK = Path(__file__).with_name("struck.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port")
DEEPSPEED = ("deepspeed", "--num_gpus", "2", "--master_port")
ENDS_WITHIN_SECONDS = 60
"""From the kill to the launcher's end; torchrun grants 30 seconds before it kills the others."""
SAVED_BY_FIRST = 5
"""Files of a checkpoint that torch and safetensors write in the first process: model, arguments, both states of
DeepSpeed, random numbers."""

CHECKPOINTS = {"checkpoint-2", "checkpoint-4", "checkpoint-5"}
"""Every second step, and the last."""

STRIKES = {
    "in a step": {"rank": 1, "step": 3},
    "in a step before any checkpoint": {"rank": 0, "step": 1},
    "in a step after the last checkpoint": {"rank": 0, "step": 5},
    **{f"first, file {file}": {"rank": 0, "file": file, "step": 4} for file in range(1, SAVED_BY_FIRST + 1)},
    "second, its states": {"rank": 1, "file": 1, "step": 4},
    "at the rename": {"rank": 0, "rename": True, "step": 4},
    "first checkpoint": {"rank": 0, "file": 3, "step": 2},
    "model at the end": {"rank": 0, "file": 1, "step": 0},
}


@dataclass(frozen=True)
class Ended:
    code: int
    said: str
    seconds: float


@pytest.fixture(scope="module")
def train(configure: Callable[..., Any], shop: Path) -> Callable[..., Ended]:
    needs("trl", "deepspeed")
    from support.long_scans import free_port

    def run(folder: Path, strike: dict[str, Any] | None = None, *more: str, start: tuple[str, ...] = TORCHRUN) -> Ended:
        config = configure(
            "llama", "spectrum", folder, processes=2, name="run", steps=5, save_strategy="steps", save_steps=2
        )["config"]
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        variables = {**environment(shop / "cache"), "STRIKE": json.dumps(strike or {})}
        started = time.monotonic()
        done = subprocess.run(
            [*start, str(free_port()), str(STRUCK), "train", str(path), *more],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
        return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - started)

    return run


@pytest.fixture(scope="module")
def whole(train: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing disturbed: its folder and its seconds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = train(folder)
    assert ended.code == 0, ended.said[-3000:]
    assert {path.name for path in (folder / "run").glob("checkpoint-*")} == CHECKPOINTS
    assert not (folder / "run" / "_saving").exists()
    return folder / "run", ended.seconds


@pytest.mark.slow
@pytest.mark.parametrize("case", STRIKES)
def test_a_killed_process_costs_nothing_that_was_saved(
    train: Callable[..., Ended], whole: tuple[Path, float], tmp_path: Path, case: str
) -> None:
    expected, seconds = whole
    ended = train(tmp_path, STRIKES[case])
    assert ended.code not in (0, None)
    assert ended.seconds < seconds + ENDS_WITHIN_SECONDS
    assert "SIGKILL" in ended.said
    assert "Traceback" not in ended.said.partition("torch/distributed/elastic")[0]
    run = tmp_path / "run"
    there = sorted(path.name for path in run.glob("checkpoint-*"))
    for name in there:  # every one of them is whole, file by file
        assert _sizes(run / name) == _sizes(expected / name)
    assert not (run / "run.json").exists()
    assert not (run / "model.safetensors").exists()
    (tmp_path / "said").write_text(ended.said)
    again = train(tmp_path, None, *(["--set", "resume_from_checkpoint=true"] if there else []))
    assert again.code == 0, again.said[-3000:]
    resumed = json.loads((run / "run.json").read_text())
    kept = [int(name.partition("-")[2]) for name in there]
    if case == "at the rename":
        assert "was complete when the run before was stopped" in again.said
        kept.append(4)
    assert resumed["resumed_at_step"] == (max(kept) if kept else None)
    before, after = load_file(expected / "model.safetensors"), load_file(run / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    assert {path.name for path in run.glob("checkpoint-*")} == CHECKPOINTS
    assert not (run / "_saving").exists()


def _sizes(folder: Path) -> dict[str, int]:
    """Of all files; the trainer's own state holds times, and its arguments the name of the folder."""
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.name != "training_args.bin" else 0
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("trainer_state.json", "files.json")
    }


@pytest.mark.slow
def test_the_deepspeed_launcher_ends_too(
    train: Callable[..., Ended], whole: tuple[Path, float], tmp_path: Path
) -> None:
    ended = train(tmp_path, {"rank": 1, "file": 1, "step": 4}, start=DEEPSPEED)
    assert ended.code != 0
    assert ended.seconds < whole[1] + ENDS_WITHIN_SECONDS
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    again = train(tmp_path, None, "--set", "resume_from_checkpoint=true", start=DEEPSPEED)
    assert again.code == 0, again.said[-3000:]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_best_checkpoint_is_named_by_its_place_and_kept(
    configure: Callable[..., Any], shop: Path, tmp_path: Path
) -> None:
    """Evaluated, one checkpoint at most, the best one loaded at the end: what upstream does with paths still holds."""
    needs("trl")
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_bytes((shop / "data.jsonl").read_bytes())
    more = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    more |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "save_total_limit": 1}
    config = configure(
        "llama",
        "spectrum",
        tmp_path,
        processes=1,
        name="run",
        steps=6,
        dataset_name=str(data),
        **more,
        learning_rate=1.0,
    )["config"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "spectrum_fast", "train", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(shop / "cache"),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"
    (kept,) = run.glob("checkpoint-*")
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(kept)
    assert kept.name == "checkpoint-2", "a learning rate of one makes every later step worse"
    assert json.loads((kept / "trainer_state.json").read_text())["best_model_checkpoint"] == str(kept)
    before, after = load_file(kept / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
