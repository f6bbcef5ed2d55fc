"""A PEFT adapter's folder as a checkpoint of its own: its matrices under the names of the modules that it changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.config import read_config
from spectrum_fast.read.checkpoint.folder import Folder
from spectrum_fast.read.checkpoint.header import read_header
from spectrum_fast.read.checkpoint.record import Checkpoint, compute_fingerprint

CONFIG = "adapter_config.json"
"""Says what the matrices beside it change."""
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Before every name that PEFT saves."""


def is_adapter(names: Collection[str]) -> bool:
    """Whether a folder of these files holds an adapter and no model."""
    return CONFIG in names and not any(name.startswith("model") and name.endswith(".safetensors") for name in names)


def open_adapter(source: str, folder: Folder, name: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Open it; its configuration is the adapter's, known by its ``peft_type``.

    Raises:
        CheckpointError: its weights are not there as safetensors, or something is broken.
    """
    if WEIGHTS not in folder.names:
        raise CheckpointError(f"{source}: an adapter, expected its matrices in {WEIGHTS}, found none; save it again")
    config = read_config(folder.file(CONFIG))
    if not isinstance(config.get("peft_type"), str):
        raise CheckpointError(f"{source}: {CONFIG}: expected a peft_type, found {config.get('peft_type')!r}")
    header = read_header(folder.file(WEIGHTS))
    if not header.tensors:
        raise CheckpointError(f"{source}: {WEIGHTS} holds no tensor at all; save the adapter again")
    return Checkpoint(
        source=source,
        name=name,
        files=(header.path,),
        tensors=tuple(replace(ref, name=ref.name.removeprefix(PREFIX)) for ref in header.tensors),
        config=config,
        notes=notes,
        fingerprint=compute_fingerprint([header]),
    )
