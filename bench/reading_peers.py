"""Other ways to get the tensors of safetensors files into CPU memory, each as its documentation shows it.

A peer returns the bytes that it delivered. What maps a file into memory has read nothing yet, so one byte of every page
is looked at; that is less work than any use of the tensor would be.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_PAGE_BYTES = 4096


def read_with_safe_open(files: Sequence[Path]) -> int:
    """``safetensors.safe_open``, tensor by tensor; pages are mapped and then looked at."""
    total = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping, a method
                total += touch(file.get_tensor(name))
    return total


def read_with_fastsafetensors(files: Sequence[Path]) -> int:
    """Fastsafetensors on the CPU, file by file: a whole file is in memory at once."""
    library: Any = importlib.import_module("fastsafetensors")
    total = 0
    for path in files:
        loader = library.SafeTensorsFileLoader(None, device="cpu", nogds=True)
        try:
            loader.add_filenames({0: [str(path)]})
            buffers = loader.copy_files_to_device()
            try:
                total += sum(touch(buffers.get_tensor(name)) for name in loader.get_keys())
            finally:
                buffers.close()
        finally:
            loader.close()
    return total


def read_with_runai_streamer(files: Sequence[Path]) -> int:
    """runai-model-streamer with its own settings: tensors in the order in which they arrive."""
    library: Any = importlib.import_module("runai_model_streamer")
    with library.SafetensorsStreamer() as streamer:
        streamer.stream_files([str(path) for path in files])
        return sum(touch(tensor) for _, tensor in streamer.get_tensors())


def touch(tensor: Tensor) -> int:
    """Look at one byte of every page; returns the size in bytes."""
    data = tensor.reshape(-1).view(torch.uint8)
    data[::_PAGE_BYTES].sum()
    return data.numel()


PEERS: dict[str, tuple[str, Callable[[Sequence[Path]], int]]] = {
    "safe_open": ("safetensors", read_with_safe_open),
    "fastsafetensors": ("fastsafetensors", read_with_fastsafetensors),
    "runai-model-streamer": ("runai-model-streamer", read_with_runai_streamer),
}
"""Name -> the distribution that it needs, and how it reads."""


def peer_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
