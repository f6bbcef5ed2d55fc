"""An opened checkpoint: what the rest of the program sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spectrum_fast.read.checkpoint.content import sample_content
from spectrum_fast.read.checkpoint.header import Header
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address
from spectrum_fast.read.storage.files import changed


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a model, located but not read.

    Attributes:
        source: what the user gave.
        name: display name: the hub id, or the directory's name, or the file's stem.
        files: the safetensors or GGUF files, in natural order of their names.
        tensors: every tensor, in file order and then by offset: the order in which reading is sequential.
        config: content of config.json, or None.
        notes: what a person should know: files passed over, unlisted tensors, ties.
        fingerprint: SHA-256 over names, sizes and headers of the files, hexadecimal; a change of a shape, a name or an
            offset changes it, a change of values alone does not (:attr:`content`).
        base: another checkpoint whose weights are taken from these, or added; None where these are looked at alone.
        relation: how: ``minus`` or ``plus``; empty without a base.
    """

    source: str
    name: str
    files: tuple[Address, ...]
    tensors: tuple[TensorRef, ...]
    config: dict[str, Any] | None
    notes: tuple[str, ...]
    fingerprint: str
    base: Checkpoint | None = None
    relation: str = ""

    @cached_property
    def content(self) -> str:
        """What tells these values from others under the same headers (:mod:`spectrum_fast.read.checkpoint.content`).

        Raises:
            CheckpointError: a file cannot be read, or has changed since it was opened.
        """
        states = {ref.file: ref.stamp for ref in self.tensors}
        return sample_content({file: states.get(file) for file in self.files}, self.fingerprint)

    def require_unchanged(self) -> None:
        """Make sure that the files are still those that were opened, and their sampled values those of :attr:`content`.

        Raises:
            CheckpointError: they are not.
        """
        if self.content != replace(self).content:  # a copy remembers nothing
            raise changed(self.name)
        if self.base is not None:
            self.base.require_unchanged()

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(ref.nbytes for ref in self.tensors)


def compute_fingerprint(headers: Sequence[Header]) -> str:
    """SHA-256 over name, size and header digest of each file, in the given order, wherever the files lie."""
    total = hashlib.sha256()
    for header in headers:
        total.update(
            f"{header.path.name}\0{header.stamp.size_bytes}\0{header.digest}\n".encode("utf-8", "surrogateescape")
        )
    return total.hexdigest()
