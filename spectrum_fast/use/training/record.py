"""``run.json``: all that is worth knowing about a run, written whole when it is done.

Layout of schema 1: ``{"schema": 1, "kind": "run", "created", "method", "model", "shard", "config": {...},
"optimizer_tensors", "processes", "trainable": {"parameters", "total_parameters", "fraction", "tensors", "bytes",
"total_bytes"}, "selection": {"digest", "modules", "always", "order", "seed", "criterion", "top_percent", "masked"} or
null, "steps", "resumed_at_step", "epochs", "seconds", "tokens", "tokens_per_second", "changed_share",
"loss": {"first", "last"}, "peak_rss_bytes": [one a process], "peak_cuda_bytes": [one a process] or null, "history":
[the log], "versions": {...}}``. A script of one's own has no ``method``, ``model``, ``shard`` and ``config``.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import resource
import sys
import time
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.use.training.choosing import selection_digest
from spectrum_fast.version import __version__

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

    from spectrum_fast.choose.selection.records import Selection
    from spectrum_fast.use.training.callbacks import SpectrumCallback

RUN_NAME = "run.json"
SCHEMA = 1
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes", "datasets", "triton")


def describe_run(callback: SpectrumCallback, arguments: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    """The record of a run that has ended; every process must call it, for peaks are gathered from all."""
    from accelerate.utils import gather_object

    peaks = gather_object([(peak_rss_bytes(), peak_cuda_bytes())])
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    seconds = callback.meter.seconds
    tokens, seen = tokens_of(
        state.log_history, first_step=callback.first_step, counted_from=callback.meter.first_tokens
    )
    share = callback.share
    trained = (
        0 if share is None else share.parameters - sum(mask.total - mask.trained for mask in callback.masks.values())
    )
    return {
        **begin_record(callback.facts),
        "processes": arguments.world_size,
        "trainable": None
        if share is None
        else {
            "parameters": trained,
            "total_parameters": share.total_parameters,
            "fraction": trained / max(1, share.total_parameters),
            "tensors": share.tensors,
            "bytes": share.nbytes,
            "total_bytes": share.total_bytes,
        },
        "selection": _selection(callback),
        "steps": state.global_step,
        "resumed_at_step": callback.first_step or None,
        "epochs": state.epoch,
        "seconds": round(seconds, 3),
        "tokens": tokens or None,
        "tokens_per_second": round(seen / seconds, 1) if seen else None,
        "changed_share": callback.changed_share,
        "loss": {"first": losses[0] if losses else None, "last": losses[-1] if losses else None},
        "peak_rss_bytes": [rss for rss, _ in peaks],
        "peak_cuda_bytes": [cuda for _, cuda in peaks] if all(cuda is not None for _, cuda in peaks) else None,
        "history": state.log_history,
    }


def begin_record(facts: dict[str, Any]) -> dict[str, Any]:
    """What every record begins with."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"schema": SCHEMA, "kind": "run", "created": created, **facts, "versions": versions()}


def tokens_of(history: list[dict[str, Any]], *, first_step: int, counted_from: float) -> tuple[float, float]:
    """Tokens seen in all, and since the run was last resumed.

    Args:
        history: the trainer's log; the count in it begins anew where TRL's trainers are resumed.
        first_step: where it was last resumed.
        counted_from: what the count was then.
    """
    counts = [(entry.get("step", 0), entry["num_tokens"]) for entry in history if "num_tokens" in entry]
    before = [count for step, count in counts if step <= first_step]
    seen = counts[-1][1] - counted_from if len(counts) > len(before) else 0
    return sum(now for now, then in pairwise([*before, 0]) if then < now) + seen, seen


def write_run(record: dict[str, Any], path: Path) -> None:
    """Write the record, whole or not at all; what is not finite (a loss that diverged) becomes a text.

    Raises:
        SpectrumFastError: the target cannot be written.
    """
    write_text_atomic(path, json.dumps(_strict(record), indent=1, allow_nan=False) + "\n", error=SpectrumFastError)


def versions() -> dict[str, str | None]:
    """Of this package, Python and the packages that train; None for one that is not here."""
    found: dict[str, str | None] = {"spectrum_fast": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What a reader of a run must know of its selection."""
    return {
        "digest": selection_digest(selection),
        "modules": len(selection.modules),
        "always": list(selection.always),
        "order": selection.order,
        "seed": selection.seed,
        "criterion": selection.criterion,
        "top_percent": selection.top_percent,
    }


def _selection(callback: SpectrumCallback) -> dict[str, Any] | None:
    if "selection" in callback.facts:
        return callback.facts["selection"]
    if callback.selection is None:
        return None
    return describe_selection(callback.selection) | {"masked": sorted(callback.masks)}


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class TrainingMeter:
    """Tokens, time and memory of this process since :meth:`start`."""

    def __init__(self) -> None:
        self.first_tokens = self._last_tokens = 0.0
        self.started = self._last_time = time.perf_counter()

    def start(self, tokens: float = 0.0) -> None:
        """Begin to count from what the trainer's count is: where it keeps one over a resumption, ``tokens``."""
        self.first_tokens = self._last_tokens = tokens
        self.started = self._last_time = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def rate(self, tokens: float) -> float:
        """Tokens a second since the last call, when ``tokens`` had been seen in all by now."""
        now = time.perf_counter()
        if tokens < self._last_tokens:  # TRL's SFT and DPO trainers begin anew when they are resumed
            self.first_tokens = self._last_tokens = 0.0
        rate = (tokens - self._last_tokens) / max(now - self._last_time, 1e-9)
        self._last_tokens = tokens
        self._last_time = now
        return rate

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started


def peak_rss_bytes() -> int:
    """The most memory that this process has held since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_cuda_bytes() -> int | None:
    """The most memory that tensors held on this process's GPU since the meter started; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
