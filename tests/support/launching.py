"""Trainings in processes of their own: alone, or two under torchrun with real DeepSpeed over gloo."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).parents[1] / "use" / "training" / "driver.py"


def zero(stage: int, **more: Any) -> dict[str, Any]:
    """A configuration of DeepSpeed as docs/training.md has it, for tests on a CPU."""
    parts = {"stage": stage, "overlap_comm": False, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    return {
        "zero_optimization": {**parts, **more},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


@dataclass(frozen=True)
class Outcome:
    """What one training left."""

    folder: Path
    facts: dict[str, Any]

    @property
    def run(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.run["history"] if "loss" in entry]

    def tensors(self, name: str = "model.safetensors") -> dict[str, Any]:
        return load_file(self.folder / name)


def needs(*packages: str) -> None:
    """Skip where a package is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def environment(cache: Path) -> dict[str, str]:
    """No network, caches inside the test's folder; DeepSpeed's compiled parts are kept in the build folder."""
    kept = os.environ.get("TORCH_EXTENSIONS_DIR") or str(ROOT / "build" / "torch_extensions")
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": kept,
        "HF_HOME": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }


def launch(cases: Iterable[dict[str, Any]], folder: Path, cache: Path, *, processes: int) -> dict[str, Outcome]:
    """Run the driver over all cases, under torchrun, or in this process where one is wanted; give what they left."""
    cases = list(cases)
    folder.mkdir(parents=True, exist_ok=True)
    said = _run_here(cases) if processes == 1 else _run_apart(cases, folder, cache, processes)
    outcomes = {}
    for case in cases:
        target = Path(case["config"]["output_dir"])
        facts_file = target / "facts.json"
        assert facts_file.exists(), f"{case['name']} left nothing: {said}"
        facts = json.loads(facts_file.read_text())
        if not case.get("may_fail"):
            assert facts["error"] is None, f"{case['name']}: {facts.get('traceback')}"
        outcomes[case["name"]] = Outcome(target, facts)
    return outcomes


def _run_here(cases: list[dict[str, Any]]) -> str:
    """Imports are paid for already."""
    import torch

    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(DRIVER))["run_cases"](cases)
    finally:
        torch.set_num_threads(threads)
    return ""


def _run_apart(cases: list[dict[str, Any]], folder: Path, cache: Path, processes: int) -> str:
    listed = folder / "cases.json"
    listed.write_text(json.dumps(cases))
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(processes),
        "--rdzv-backend",
        "c10d",
    ]
    start += ["--rdzv-endpoint", "127.0.0.1:0"]
    done = subprocess.run(
        [*start, str(DRIVER), str(listed)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env=environment(cache),
    )
    return f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
