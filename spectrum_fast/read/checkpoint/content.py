"""A hash of sampled blocks, which tells values from others under the same header, whatever the files' times say.

Another fine-tune, or anything else that was trained on, differs in nearly every block. An edit of a few tensors may
miss all of them: the state of the files (:class:`~spectrum_fast.read.storage.stored_file.Stamp`) and the digests of
what is read (:attr:`~spectrum_fast.read.stream.LoadedWeight.digest`) are for that.

Where the blocks lie follows from the headers, so that the same bytes have the same hash wherever they are. A remote
file whose server names its content (by an entity tag, a version, a commit) is known by that and not sampled; a date
is no such name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from spectrum_fast.read.storage import Address, RemoteStamp, Stamp, StoredFile, map_reads, opened, read_bytes

BLOCKS = 64
"""Of a file: 256 KiB, a moment's reading."""
BLOCK_BYTES = 4096


def sample_content(files: Mapping[Address, Stamp | None], key: str) -> str:
    """Hash a few blocks of every file.

    Args:
        files: those of a checkpoint with the states that they must have; None for any.
        key: decides where the blocks lie and is part of the hash: the checkpoint's fingerprint.

    Returns:
        32 hexadecimal digits; empty where no file was sampled.

    Raises:
        CheckpointError: a file is in another state, or cannot be read.
    """
    total = hashlib.blake2b(digest_size=16, key=key.encode()[:64])
    sampled = False
    for address, state in files.items():
        if isinstance(state, RemoteStamp) and state.names_content:
            continue
        with opened(address, stamp=state) as stored:
            for block in _blocks(stored, address, key):
                total.update(block)
        sampled = True
    return total.hexdigest() if sampled else ""


def _blocks(stored: StoredFile, address: Address, key: str) -> list[bytes]:
    """One block out of each of so many equal parts, at places drawn from the key; a small file whole."""
    size = stored.stamp.size_bytes
    step = max(-(-size // BLOCKS), BLOCK_BYTES)
    draw = hashlib.shake_128(f"{key}/{address.name}".encode("utf-8", "surrogateescape")).digest(8 * BLOCKS)
    places = [
        begin + int.from_bytes(draw[8 * number : 8 * number + 8], "little") % (step - BLOCK_BYTES + 1)
        for number, begin in enumerate(range(0, size, step))
    ]

    return map_reads(lambda place: read_bytes(stored, max(0, min(BLOCK_BYTES, size - place)), place), places, address)
