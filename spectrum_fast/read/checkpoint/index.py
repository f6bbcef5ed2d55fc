"""The index of a sharded checkpoint: tensor name -> name of the file that holds it."""

from __future__ import annotations

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.header import MAX_NAME_BYTES
from spectrum_fast.read.checkpoint.json_cursor import JsonCursor, JsonError
from spectrum_fast.read.storage import Address, read_small_file
from spectrum_fast.read.storage.files import shorten

MAX_INDEX_BYTES = 100_000_000
"""Largest index accepted; DeepSeek-V3's (91,991 tensors) has 9 MB."""


def read_index(path: Address) -> dict[str, str]:
    """Read and check ``*.safetensors.index.json``.

    Args:
        path: the index file.

    Returns:
        Tensor name -> shard name; every shard name is a plain file name ending in ``.safetensors``.

    Raises:
        CheckpointError: not JSON, no ``weight_map``, a value that is not a string, a duplicate tensor, or a shard name
            that is anything but a file in the same folder.
    """
    cursor = JsonCursor(read_small_file(path, MAX_INDEX_BYTES))
    weight_map: dict[str, str] | None = None
    try:
        for key in cursor.keys("the index", MAX_NAME_BYTES):
            if key != "weight_map":
                cursor.skip_value(f"{shorten(key)} in the index")
            elif weight_map is not None:
                raise JsonError("weight_map occurs twice")
            else:
                weight_map = _read_weight_map(cursor)
        cursor.end()
    except JsonError as error:
        raise CheckpointError(f"{path}: broken index: {error}; download or save it again") from error
    if not weight_map:
        raise CheckpointError(f"{path}: expected an object 'weight_map' that names at least one tensor; save it again")
    return weight_map


def _read_weight_map(cursor: JsonCursor) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    shards: dict[str, str] = {}
    for name in cursor.keys("weight_map", MAX_NAME_BYTES):
        shard = cursor.string(f"the file of tensor {shorten(name)}", 4096)
        if name in weight_map:
            raise JsonError(f"tensor {shorten(name)} occurs twice in weight_map")
        if shard not in shards:
            problem = _shard_name_problem(shard)
            if problem is not None:
                raise JsonError(
                    f"tensor {shorten(name)} is placed in {shorten(shard)}, {problem}; expected the plain name of a "
                    "*.safetensors file beside the index"
                )
        weight_map[name] = shards.setdefault(shard, shard)
    return weight_map


def _shard_name_problem(shard: str) -> str | None:
    if "/" in shard or "\\" in shard or "\0" in shard:
        return "which is a path"
    if not shard.endswith(".safetensors"):
        return "which is not a safetensors file"
    if len(shard.encode("utf-8")) > 255:
        return "which is longer than a file name can be"
    return None
