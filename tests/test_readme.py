"""The example in README.md runs as it stands, and the commands it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import spectrum_fast as sf
from spectrum_fast.use.cli.app import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_scans_selects_and_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (torch.nn.ModuleDict({"proj": torch.nn.Linear(24, 32)}) for _ in range(4))
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(layers)})
    checkpoint = tmp_path / "path" / "to" / "checkpoint"
    checkpoint.mkdir(parents=True)
    save_file(dict(model.state_dict()), checkpoint / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    block, *others = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 6
    exec(compile(block, "README.md", "exec"), {"model": model})  # noqa: S102
    assert (tmp_path / "scan.json").exists()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trainable) == 2  # a quarter of four layers: one, weight and bias
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    for other in others:
        exec(compile(other, "README.md", "exec"), {"sf": sf, "weight": weight, "weights": [weight, weight.T]})  # noqa: S102


def test_every_command_and_make_target_named_in_the_readme_exists() -> None:
    commands = set(re.findall(r"`spectrum-fast (\w+)", README))
    assert commands >= {"scan", "select", "compare", "check", "doctor"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
