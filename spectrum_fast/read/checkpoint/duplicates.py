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
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from spectrum_fast.read.checkpoint.config import ties_embeddings
from spectrum_fast.read.checkpoint.naming import module_name, natural_key, role
from spectrum_fast.read.checkpoint.record import Checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import StoredFile, map_reads, opened, read_bytes
from spectrum_fast.read.storage.files import changed

SAMPLE_BYTES = 4096
"""Bytes compared at each of the four places of a tensor."""

CHUNK_BYTES = 4 << 20
"""Bytes read at a time when two tensors agree in their samples."""

_SAMPLES = 4


def find_copies(checkpoint: Checkpoint) -> dict[str, str]:
    """Find tensors with equal type, shape and bytes.

    Vectors are left out: norms and biases are often all ones or all zeros in many layers without being tied.

    Returns:
        Name of each duplicate -> name of its original.

    Raises:
        CheckpointError: a file cannot be read, or has changed since its header was read.
    """
    # File by file over all of them, so that a disk is swept once for each kind of block.
    keys: dict[TensorRef, tuple[Any, ...]] = {
        ref: (ref.dtype, ref.shape) for ref in checkpoint.tensors if len(ref.shape) > 1 and ref.nbytes
    }
    for spans in (_first_block, _other_blocks, _everything):
        count = Counter(keys.values())
        keys = {ref: key for ref, key in keys.items() if count[key] > 1}
        for address, of_file in groupby(list(keys), key=lambda ref: ref.file):
            refs = list(of_file)
            with opened(address, stamp=refs[0].stamp) as file:
                digests = map_reads(partial(_digest, file=file, spans=spans), refs, address)
            keys.update({ref: (*keys[ref], digest) for ref, digest in zip(refs, digests, strict=True)})
    return name_originals(keys)


def name_originals(keys: Mapping[TensorRef, Hashable]) -> dict[str, str]:
    """Of tensors whose keys are equal: name of each but the original -> name of the original.

    That is the lookup table if there is one among them, an output head last, and otherwise the first in natural order.
    """
    originals: dict[Hashable, str] = {}
    copies: dict[str, str] = {}
    for ref in sorted(keys, key=_originality):
        original = originals.setdefault(keys[ref], ref.name)
        if original != ref.name:
            copies[ref.name] = original
    return copies


def tied_names(copies: Mapping[str, str], config: dict[str, Any] | None) -> dict[str, str]:
    """Those of the copies that are one parameter with their original in the model.

    Lookup tables and output heads with equal bytes are, unless the configuration says ``tie_word_embeddings: false``,
    which parts the heads from the tables.

    Args:
        copies: name of each copy -> name of its original.
        config: the model's configuration.
    """
    untied = ties_embeddings(config) is False
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


def _originality(ref: TensorRef) -> tuple[bool, bool, Any]:
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


def _digest(ref: TensorRef, *, file: StoredFile, spans: Callable[[TensorRef], list[tuple[int, int]]]) -> bytes:
    total = hashlib.sha256()
    for offset, count in spans(ref):
        data = read_bytes(file, count, ref.begin + offset)
        if len(data) != count:
            raise changed(ref)
        total.update(data)
    return total.digest()
