"""Tied and duplicate tensors: the same bytes stored twice, so that they are scored once.

Tensors of one file cannot share bytes (the header forbids overlap), so a copy shows only in its content. Reading
everything to find out would double a scan's input; instead a few kilobytes of every tensor are compared, and only
tensors that agree there are read in full.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from spectrum_fast.checkpoint.config import ties_embeddings
from spectrum_fast.checkpoint.files import shorten
from spectrum_fast.checkpoint.naming import is_embedding, is_head, module_name, natural_key
from spectrum_fast.checkpoint.record import Checkpoint
from spectrum_fast.checkpoint.storage import Address, Stamp, StoredFile, open_stored_file, read_bytes, read_failure
from spectrum_fast.checkpoint.tensor_ref import TensorRef
from spectrum_fast.errors import CheckpointError

SAMPLE_BYTES = 4096
"""Bytes compared at each of the four places of a tensor."""

CHUNK_BYTES = 4 << 20
"""Bytes read at a time when two tensors agree in their samples."""

_SAMPLES = 4


def find_ties(checkpoint: Checkpoint, min_dimensions: int = 2) -> dict[str, str]:
    """Find tensors with equal type, shape and bytes.

    Args:
        checkpoint: the opened checkpoint.
        min_dimensions: tensors with fewer extents are left out: norms and biases are often all ones or all zeros in
            many layers without being tied.

    Returns:
        Name of each duplicate -> name of its original. The original is the lookup table if there is one in the group,
        and otherwise the first in natural order.

    Raises:
        CheckpointError: a file cannot be read, or has changed since its header was read.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[TensorRef]] = defaultdict(list)
    for ref in checkpoint.tensors:
        if len(ref.shape) >= min_dimensions and ref.nbytes:
            alike[ref.dtype, ref.shape].append(ref)
    ties: dict[str, str] = {}
    with _Files() as files:
        # Samples are taken in file order over all groups, so that a disk is swept once.
        candidates = [
            ref for ref in checkpoint.tensors if len(alike.get((ref.dtype, ref.shape), ())) > 1 and ref.nbytes
        ]
        for group in _equal_groups(candidates, files.sample_digest):
            for equal in _equal_groups(group, files.full_digest):
                original, *copies = sorted(equal, key=originality)
                ties.update({copy.name: original.name for copy in copies})
    return ties


def tied_head_note(tensors: Iterable[TensorRef], config: dict[str, Any] | None) -> str | None:
    """Say so if the configuration ties the output head to the embedding and the head is therefore not stored."""
    if not ties_embeddings(config):
        return None
    names = [module_name(ref.name) for ref in tensors if len(ref.shape) == 2]
    tables = sorted((name for name in names if is_embedding(name)), key=natural_key)
    if not tables or any(is_head(name) for name in names):
        return None
    return f"lm_head is tied to {tables[0]} and is scored once"


def originality(ref: TensorRef) -> tuple[bool, bool, Any]:
    """Sort key among equal tensors: lookup tables first, output heads last, then by natural order of names."""
    return (not is_embedding(ref.name), is_head(ref.name), natural_key(ref.name))


def _equal_groups(refs: Sequence[TensorRef], digest: Any) -> list[list[TensorRef]]:
    groups: dict[tuple[str, tuple[int, ...], bytes], list[TensorRef]] = defaultdict(list)
    for ref in refs:
        groups[ref.dtype, ref.shape, digest(ref)].append(ref)
    return [group for group in groups.values() if len(group) > 1]


class _Files:
    """The file being read; one is open at a time."""

    def __init__(self) -> None:
        self._address: Address | None = None
        self._file: StoredFile | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def sample_digest(self, ref: TensorRef) -> bytes:
        """Digest of blocks at the beginning, at one and two thirds, and at the end."""
        last = max(ref.nbytes - SAMPLE_BYTES, 0)
        places = sorted({last * step // (_SAMPLES - 1) for step in range(_SAMPLES)})
        return self._digest(ref, [(place, min(SAMPLE_BYTES, ref.nbytes - place)) for place in places])

    def full_digest(self, ref: TensorRef) -> bytes:
        """Digest of all bytes."""
        if ref.nbytes <= SAMPLE_BYTES * _SAMPLES:
            return self._digest(ref, [(0, ref.nbytes)])
        steps = range(0, ref.nbytes, CHUNK_BYTES)
        return self._digest(ref, [(step, min(CHUNK_BYTES, ref.nbytes - step)) for step in steps])

    def _digest(self, ref: TensorRef, spans: Iterable[tuple[int, int]]) -> bytes:
        file = self._open(ref)
        total = hashlib.sha256()
        for offset, count in spans:
            try:
                data = read_bytes(file, count, ref.begin + offset)
            except OSError as error:
                raise CheckpointError(
                    f"{ref.file}: tensor {shorten(ref.name)} cannot be read: {read_failure(error)}"
                ) from error
            if len(data) != count:
                raise CheckpointError(
                    f"{ref.file}: ended inside tensor {shorten(ref.name)}: truncated or replaced while being read"
                )
            total.update(data)
        return total.digest()

    def _open(self, ref: TensorRef) -> StoredFile:
        if self._file is not None and self._address == ref.file:
            return self._file
        self._close()
        self._file = open_stored_file(ref.file)
        self._address = ref.file
        _require_unchanged(ref, self._file.stamp)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._address, self._file = None, None


def _require_unchanged(ref: TensorRef, stamp: Stamp) -> None:
    if ref.stamp is not None and ref.stamp != stamp:
        raise CheckpointError(
            f"{ref.file}: truncated or replaced while being read; scan again when nothing writes to it"
        )
