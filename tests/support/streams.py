"""What the tests of the stream share: checkpoints whose values tell which tensor they belong to, and what is open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan


def plan_of(ref: TensorRef) -> WeightPlan:
    return WeightPlan(ref.name, ref.name, ref)


def plans_of(refs: Iterable[TensorRef]) -> Iterator[WeightPlan]:
    return (plan_of(ref) for ref in refs)


def write_many(folder: Path) -> tuple[TensorRef, ...]:
    """Ten tensors in two files, their values their numbers."""
    for part in range(2):
        tensors = {f"w{part}{i}": torch.full((64, 64), float(10 * part + i)) for i in range(5)}
        save_file(tensors, folder / f"part{part}.safetensors")
    return open_checkpoint(folder).tensors


def descriptors() -> set[str]:
    """Checkpoint files that this process has open."""
    held = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return {path for path in held if path.endswith(".safetensors")}


def reading_threads() -> list[threading.Thread]:
    names = ("spectrum-fast-read", "spectrum-fast-copy")
    return [thread for thread in threading.enumerate() if thread.name.startswith(names)]
