"""The scripts of docs/trainers.md train exactly what is selected, each with the page's first lines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.make_checkpoint import write_checkpoint

from support.blocks import PYTHON, read_blocks
from support.tiny_models import write_tokenizer

FIRST, *SCRIPTS = [
    block for block in read_blocks(Path(__file__).parents[2] / "docs" / "trainers.md") if block.language in PYTHON
]
SFT = next(block.code for block in SCRIPTS if "SFTTrainer" in block.code)


def name_of(block: Any) -> str:
    found = re.search(r"(\w+)Trainer\(\n", block.code) or re.search(r"(?:from|import) (\w+)", block.code)
    assert found is not None
    return found[1]


CASES = {name_of(block): block for block in SCRIPTS}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = write_checkpoint(tmp_path_factory.mktemp("scripts"), like="tiny", layers=4).path
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [name if name == "accelerate" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_a_script_trains_exactly_what_is_selected(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl" if name.isupper() else name)
    shutil.copytree(checkpoint, tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(FIRST.code, names)  # noqa: S102
    model, selection = names["model"], names["selection"]
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    if name in ("DPO", "GRPO"):  # their imports, tokenizer and options stand in the script before
        exec(SFT.partition("rows = ")[0], names)  # noqa: S102
    exec(CASES[name].code, names)  # noqa: S102
    changed = {key for key, value in model.named_parameters() if not torch.equal(value.detach(), before[key])}
    assert changed == {f"{entry}.weight" for entry in selection.names} & before.keys()
    assert len(changed) > 4


def test_the_page_has_every_trainer() -> None:
    assert set(CASES) == {"transformers", "SFT", "DPO", "GRPO", "accelerate", "lightning"}
