"""``run.json``: all that is worth knowing about a run, written whole when it is done.

Layout of schema 1: ``{"schema": 1, "kind": "run", "created", "method", "model", "shard", "config": {...},
"optimizer_tensors", "processes", "trainable": {"parameters", "total_parameters", "fraction", "tensors", "bytes",
"total_bytes"}, "selection": {"digest", "modules", "always", "order", "seed", "criterion", "top_percent", "masked"} or
null, "steps", "resumed_at_step", "epochs", "seconds", "tokens", "tokens_per_second", "changed_share",
"loss": {"first", "last"}, "peak_rss_bytes": [one a process], "peak_cuda_bytes": [one a process] or null, "history":
[the log], "versions": {...}}``. A script of one's own has no ``method``, ``model``, ``shard`` and ``config``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from spectrum_fast.files import write_text_atomic
from spectrum_fast.version import __version__

if TYPE_CHECKING:
    from transformers import TrainerState

    from spectrum_fast.choose.selection.model.apply import AppliedSelection
    from spectrum_fast.choose.selection.selection import Selection

RUN_NAME = "run.json"
_SHARE = ("trainable_parameters", "total_parameters", "trainable_fraction", "trainable_tensors", "trainable_bytes",
          "total_bytes")  # fmt: skip
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes", "datasets", "triton")


def describe_run(state: TrainerState, share: AppliedSelection | None) -> dict[str, Any]:
    """What the trainer knows of a run that has ended; every process must call it, for peaks are gathered from all."""
    peaks = gather_object([(peak_rss_bytes(), peak_cuda_bytes())])
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return {
        "processes": len(peaks),
        "trainable": share and {key.removeprefix("trainable_"): getattr(share, key) for key in _SHARE},
        "steps": state.global_step,
        "epochs": state.epoch,
        "loss": {"first": losses[0] if losses else None, "last": losses[-1] if losses else None},
        "peak_rss_bytes": [rss for rss, _ in peaks],
        "peak_cuda_bytes": [cuda for _, cuda in peaks] if all(cuda is not None for _, cuda in peaks) else None,
        "history": state.log_history,
    }


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What a reader of a run must know of its selection."""
    kept = {key: getattr(selection, key) for key in ("order", "seed", "criterion", "top_percent")}
    modules = len(selection.modules)
    return {"digest": selection_digest(selection), "modules": modules, "always": list(selection.always), **kept}


def selection_digest(selection: Selection) -> str:
    """SHA-256 of the names that are trained, whatever their order: equal for equal trainings."""
    names = json.dumps(sorted(selection.names))
    return "sha256:" + hashlib.sha256(names.encode()).hexdigest()


def write_run(facts: dict[str, Any], path: Path) -> None:
    """Write a record, whole or not at all; what JSON has not (a loss that diverged, a path) becomes a text.

    Raises:
        SpectrumFastError: the target cannot be written.
    """
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    versions |= {"spectrum_fast": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {"schema": 1, "kind": "run", "created": created, **facts, "versions": versions}
    plain = json.loads(json.dumps(record, default=str), parse_constant=str)
    write_text_atomic(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def peak_rss_bytes() -> int:
    """The most memory that this process has held since it began."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_cuda_bytes() -> int | None:
    """The most memory that tensors held on this process's GPU since training began; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
