"""The recipes for schedulers in docs/long-scans.md: valid, and what they start makes a scan."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.use.cli import main

from support.blocks import Block, read_blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "long-scans.md"


def block_with(words: str) -> Block:
    (found,) = (block for block in read_blocks(PAGE) if words in block.code)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "my-model", like="tiny", layers=2).path


def run(command: str, model: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """One command of a recipe, its variables filled in as the scheduler does, in this process."""
    for name, value in variables.items():
        command = command.replace(f"$({name})", value).replace(f"${name}", value)
    home = str(model.parent)
    words: list[str] = []
    for word in shlex.split(command):
        word = str(model) if word.endswith("my-model") else word.replace("/data", home).replace("/results", home)
        words += sorted(map(str, model.parent.glob(Path(word).name))) if "*" in word else [word]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def test_a_slurm_array_and_its_merge(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_with("sbatch")
    assert subprocess.run(["bash", "-n", "-c", block.code], check=False).returncode == 0
    part, merge = re.findall(r"--wrap\s+(?:\\\n\s*)?'([^']+)'", block.code)
    (first, last) = re.search(r"--array=(\d+)-(\d+)", block.code).groups()  # type: ignore[union-attr]
    for number in range(int(first), int(last) + 1):
        run(part, model, monkeypatch, SLURM_ARRAY_TASK_ID=str(number))
    run(merge, model, monkeypatch)
    assert sf.load_scan(tmp_path / "scan.json").modules == sf.scan(model, threads=8).modules


def test_a_kubernetes_job_and_its_merge(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = yaml.safe_load(block_with("completionMode: Indexed").code)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for number in range(job["spec"]["completions"]):
        command = shlex.join([*container["command"], *container["args"]])
        run(command.replace("'", ""), model, monkeypatch, JOB_COMPLETION_INDEX=str(number))
    run("spectrum-fast merge /results/scan.json.part-* --out /results/scan.json", model, monkeypatch)
    assert sf.load_scan(tmp_path / "scan.json").modules == sf.scan(model, threads=8).modules


def test_the_kubernetes_job_is_valid() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(
        yaml.safe_load(block_with("completionMode: Indexed").code), validator.latest_version(), strict=True
    )
