"""Tiny models and data on the disk, and a maker of configurations for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.launching import zero
from support.tiny_models import FAMILIES, write_data, write_model


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``llama``, ``qwen-moe``, ``gpt-neox`` (two layers each) and ``data.jsonl``."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("shop")
    for family in FAMILIES:
        write_model(folder / family, family, layers=2)
    write_data(folder / "data.jsonl")
    return folder


@pytest.fixture(scope="session")
def configure(shop: Path) -> Callable[..., dict[str, Any]]:
    """Make a case for the driver: two sequences a step in all, float32, every step in the log."""

    def make(
        family: str, method: str, folder: Path, *, processes: int, name: str = "", steps: int = 2, **changes: Any
    ) -> dict[str, Any]:
        spectrum = {"method": method, "top_percent": 50}
        if method in ("full", "lora", "qlora"):
            del spectrum["top_percent"]
        spectrum |= changes.pop("spectrum", {})
        name = name or f"{family}-{method}"
        config = {
            "model_name_or_path": str(shop / family),
            "dataset_name": str(shop / "data.jsonl"),
            "output_dir": str(folder / name),
            "max_steps": steps,
            "per_device_train_batch_size": 2 // processes,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "bf16": False,
            "max_length": 32,
            "lora_dropout": 0.0,
            "spectrum": spectrum,
        }
        if processes > 1:
            config["deepspeed"] = zero(3)
        if family == "qwen-moe":  # its mean over each process's own tokens is not the mean over all
            config["router_aux_loss_coef"] = 0.0
        return {"name": name, "config": {**config, **changes}}

    return make
