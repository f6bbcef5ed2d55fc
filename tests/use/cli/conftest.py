"""The command line as a user runs it: another process, 80 columns, no terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import scan
from spectrum_fast.use.cli import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """The variables of a terminal of 80 columns, and those given."""

    def make(**extra: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "LINES")}
        return {**kept, "COLUMNS": "80", "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", **extra}

    return make


@pytest.fixture(scope="session")
def run(environment: Callable[..., dict[str, str]]) -> Run:
    """Run ``spectrum-fast`` with these arguments and wait."""

    def run_command(*arguments: object, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "spectrum_fast", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            env=environment(**extra),
        )

    return run_command


@pytest.fixture
def inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """The same in this process, in an empty folder, without the seconds that importing torch takes."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["spectrum-fast", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        captured = capsys.readouterr()
        code = leaving.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(sys.argv, code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 8 layers, 57 small matrices; its head is tied."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), like="tiny", layers=8).path


@pytest.fixture(scope="session")
def broken(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a NaN in one matrix and int8 codes in another."""
    tensors = load_file(tiny / "model.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"][2, 5] = torch.nan
    tensors["model.layers.5.mlp.up_proj.weight"] = tensors["model.layers.5.mlp.up_proj.weight"].to(torch.int8)
    folder = tmp_path_factory.mktemp("broken")
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def scanned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan file of ``tiny``."""
    target = tmp_path_factory.mktemp("scanned") / "scan.json"
    scan(tiny, out=target)
    return target
