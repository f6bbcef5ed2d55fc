"""The same bytes stored twice: scored once, and one module or two.

A head stored beside the table that it is tied to is one parameter of the model (:func:`tied_names`). Equal layers of a
merged or upcycled model are parameters of their own, which a training moves apart; each competes for itself.

Tensors of one file cannot share bytes (the header forbids overlap), so a copy shows only in its content. Reading
everything to find out would double a scan's input. Instead a block of a few kilobytes is compared first, of every
tensor that has another one of its type and shape; then three more blocks of those that agree there; and only tensors
that agree in all four are read in full. Of a remote checkpoint a block costs one small request, several at a time; what
is read a second time are the originals of real copies, and the copies themselves are not read again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.config import ties_embeddings, unties_embeddings
from spectrum_fast.read.checkpoint.naming import module_name, natural_key, role
from spectrum_fast.read.checkpoint.record import Checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import (
    Address,
    RemoteFile,
    Stamp,
    StoredFile,
    open_stored_file,
    read_bytes,
    read_failure,
)
from spectrum_fast.read.storage.files import shorten

SAMPLE_BYTES = 4096
"""Bytes compared at each of the four places of a tensor."""

CHUNK_BYTES = 4 << 20
"""Bytes read at a time when two tensors agree in their samples."""

_SAMPLES = 4
_REQUESTS_AT_ONCE = 8


def find_copies(checkpoint: Checkpoint, min_dimensions: int = 2) -> dict[str, str]:
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
    found: dict[str, str] = {}
    with _Files() as files:
        # Blocks are taken in file order over all groups, so that a disk is swept once.
        candidates = [
            ref for ref in checkpoint.tensors if len(alike.get((ref.dtype, ref.shape), ())) > 1 and ref.nbytes
        ]
        groups = files.equal_groups(candidates, _first_block)
        for spans in (_other_blocks, _everything):
            groups = [equal for group in groups for equal in files.equal_groups(group, spans)]
        for group in groups:
            original, *copies = sorted(group, key=originality)
            found.update({copy.name: original.name for copy in copies})
    return found


def tied_names(copies: Mapping[str, str], config: dict[str, Any] | None) -> dict[str, str]:
    """Those of the copies that are one parameter with their original in the model.

    Lookup tables and output heads with equal bytes are, unless the configuration says ``tie_word_embeddings: false``,
    which parts the heads from the tables.

    Args:
        copies: name of each copy -> name of its original.
        config: the model's configuration.
    """
    untied = unties_embeddings(config)
    ties = {}
    for copy, original in copies.items():
        roles = {role(copy), role(original)}
        if "other" not in roles and not (untied and len(roles) > 1):
            ties[copy] = original
    return ties


def tied_head_note(tensors: Iterable[TensorRef], config: dict[str, Any] | None) -> str | None:
    """Say so if the configuration ties the output head to the embedding and the head is therefore not stored."""
    if not ties_embeddings(config):
        return None
    names = [module_name(ref.name) for ref in tensors if len(ref.shape) == 2]
    tables = sorted((name for name in names if role(name) == "embedding"), key=natural_key)
    if not tables or any(role(name) == "head" for name in names):
        return None
    return f"lm_head is tied to {tables[0]} and is scored once"


def originality(ref: TensorRef) -> tuple[bool, bool, Any]:
    """Sort key among equal tensors: lookup tables first, output heads last, then by natural order of names."""
    return (role(ref.name) != "embedding", role(ref.name) == "head", natural_key(ref.name))


def _block(ref: TensorRef, step: int) -> tuple[int, int]:
    """Offset and length of one of the blocks at the beginning, at one and two thirds, and at the end."""
    place = max(ref.nbytes - SAMPLE_BYTES, 0) * step // (_SAMPLES - 1)
    return place, min(SAMPLE_BYTES, ref.nbytes - place)


def _first_block(ref: TensorRef) -> list[tuple[int, int]]:
    return [_block(ref, 1)]  # not the beginning: padding rows of zeros lie there


def _other_blocks(ref: TensorRef) -> list[tuple[int, int]]:
    return [_block(ref, step) for step in (0, 2, 3)]


def _everything(ref: TensorRef) -> list[tuple[int, int]]:
    return [(step, min(CHUNK_BYTES, ref.nbytes - step)) for step in range(0, ref.nbytes, CHUNK_BYTES)]


class _Files:
    """The files being read, and threads to read remote ones side by side; one local file is open at a time."""

    def __init__(self) -> None:
        self._address: Address | None = None
        self._file: StoredFile | None = None
        self._remote: dict[RemoteFile, StoredFile] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        for file in self._remote.values():
            file.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def equal_groups(
        self, refs: Sequence[TensorRef], spans: Callable[[TensorRef], list[tuple[int, int]]]
    ) -> list[list[TensorRef]]:
        """Those of the tensors that agree in type, shape and these bytes with another one, by group."""
        groups: dict[tuple[str, tuple[int, ...], bytes], list[TensorRef]] = defaultdict(list)
        for ref, digest in zip(refs, self._digests(refs, spans), strict=True):
            groups[ref.dtype, ref.shape, digest].append(ref)
        return [group for group in groups.values() if len(group) > 1]

    def _digests(
        self, refs: Sequence[TensorRef], spans: Callable[[TensorRef], list[tuple[int, int]]]
    ) -> Iterator[bytes]:
        files = [self._open(ref) if isinstance(ref.file, RemoteFile) else None for ref in refs]
        if len(refs) < 2 or None in files:
            for ref in refs:
                yield _digest(ref, self._open(ref), spans(ref))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "spectrum-fast-compare")
        yield from self._pool.map(lambda ref, file: _digest(ref, file, spans(ref)), refs, files)

    def _open(self, ref: TensorRef) -> StoredFile:
        if isinstance(ref.file, RemoteFile):
            file = self._remote.get(ref.file)
            if file is None:
                file = self._remote[ref.file] = open_stored_file(ref.file)
                _require_unchanged(ref, file.stamp)
            return file
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


def _digest(ref: TensorRef, file: StoredFile, spans: Iterable[tuple[int, int]]) -> bytes:
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


def _require_unchanged(ref: TensorRef, stamp: Stamp) -> None:
    if ref.stamp is not None and ref.stamp != stamp:
        raise CheckpointError(
            f"{ref.file}: truncated or replaced while being read; scan again when nothing writes to it"
        )
