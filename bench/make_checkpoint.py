"""Write a model-shaped safetensors checkpoint with heavy-tailed spectra, of any size, in the memory of one block.

``python bench/make_checkpoint.py --like llama-3-8b --layers 4 --out /tmp/llama``

Names, shapes and config are those of the family (:mod:`bench.families`); the values are random with the spectra of
trained weights (:mod:`bench.weights`). Nothing is downloaded. The safetensors header is written by hand (8 bytes of
length, JSON, space padding to a multiple of 8), then the tensors in sequence.
Source of the format: the safetensors README, section "Format".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

if not __package__:  # started as a script: the checkout root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.families import FAMILIES, Shapes, model_config, model_shapes, resolve_family
from bench.weights import iter_row_blocks, make_tensor
from spectrum_fast.errors import SpectrumFastError, UsageError

__all__ = ["DTYPES", "WrittenCheckpoint", "main", "make_tensor", "model_shapes", "write_checkpoint"]

DTYPES: dict[str, tuple[str, torch.dtype]] = {
    "bf16": ("BF16", torch.bfloat16),
    "f16": ("F16", torch.float16),
    "f32": ("F32", torch.float32),
}
"""Name on the command line -> (name in a safetensors header, torch type)."""


@dataclass(frozen=True)
class WrittenCheckpoint:
    """What was written.

    Attributes:
        path: the directory.
        files: the shard files, in order.
        n_tensors: number of tensors.
        n_parameters: number of values.
        total_bytes: bytes of tensor data, headers not counted.
        largest_matrix: name of the tensor with most values.
        largest_matrix_values: its number of values.
    """

    path: Path
    files: tuple[Path, ...]
    n_tensors: int
    n_parameters: int
    total_bytes: int
    largest_matrix: str
    largest_matrix_values: int


def write_checkpoint(
    path: str | Path,
    *,
    like: str,
    layers: int | None = None,
    dtype: str | None = None,
    shard_gib: float = 5.0,
    seed: int = 0,
    scale: int = 1,
    embeddings: bool = True,
) -> WrittenCheckpoint:
    """Write ``config.json`` and one ``model.safetensors``, or shards with their index.

    Args:
        path: directory to write into; made if absent, files of the same names are replaced.
        like: a key of :data:`bench.families.FAMILIES`.
        layers: number of layers, None for the family's own.
        dtype: ``bf16``, ``f16`` or ``f32``; None for the family's own.
        shard_gib: a shard is closed before it would grow past this many GiB (a single tensor may be larger).
        seed: seed of all values; a tensor depends on ``(seed, its name, its shape)`` only.
        scale: divisor of every width, for small test checkpoints.
        embeddings: False leaves out the embeddings and ``lm_head``.

    Returns:
        What was written.

    Raises:
        UsageError: unknown family or type, or a number out of range.
    """
    family, _ = resolve_family(like, layers, scale)
    dtype = dtype or family.dtype
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if shard_gib <= 0:
        raise UsageError(f"a shard needs a positive size, found shard_gib={shard_gib}")
    shapes = model_shapes(like, layers, scale, embeddings=embeddings)
    item_bytes = DTYPES[dtype][1].itemsize
    shards = _split(shapes, item_bytes, int(shard_gib * 2**30))

    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        files.append(directory / name)
        _write_shard(files[-1], shard, dtype, seed)
    total_bytes = sum(prod(shape) for shape in shapes.values()) * item_bytes
    if len(shards) > 1:
        weight_map = {name: file.name for file, shard in zip(files, shards, strict=True) for name in shard}
        _write_json(
            directory / "model.safetensors.index.json",
            {"metadata": {"total_size": total_bytes}, "weight_map": weight_map},
        )
    _write_json(directory / "config.json", model_config(like, layers, scale, dtype))
    largest = max(shapes, key=lambda name: prod(shapes[name]))
    return WrittenCheckpoint(
        path=directory,
        files=tuple(files),
        n_tensors=len(shapes),
        n_parameters=total_bytes // item_bytes,
        total_bytes=total_bytes,
        largest_matrix=largest,
        largest_matrix_values=prod(shapes[largest]),
    )


def _split(shapes: Shapes, item_bytes: int, shard_bytes: int) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    used_bytes = 0
    for name, shape in shapes.items():
        size = prod(shape) * item_bytes
        if shards[-1] and used_bytes + size > shard_bytes:
            shards.append({})
            used_bytes = 0
        shards[-1][name] = shape
        used_bytes += size
    return shards


def _write_shard(path: Path, shapes: Shapes, dtype: str, seed: int) -> None:
    code, torch_dtype = DTYPES[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + prod(shape) * torch_dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape in shapes.items():
            for block in iter_row_blocks(name, shape, seed=seed):
                file.write(block.to(torch_dtype).contiguous().view(torch.uint8).numpy().data)
    os.replace(part, path)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 0 done, 2 bad usage."""
    parser = argparse.ArgumentParser(description="Write a model-shaped safetensors checkpoint with random weights.")
    parser.add_argument("--like", required=True, choices=list(FAMILIES), help="architecture to imitate")
    parser.add_argument("--out", required=True, type=Path, help="directory to write into")
    parser.add_argument("--layers", type=int, help="number of layers (default: the family's own)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="storage type (default: the family's own)")
    parser.add_argument("--shard-gib", type=float, default=5.0, help="largest shard in GiB (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all values (default 0)")
    parser.add_argument("--scale", type=int, default=1, help="divide every width by this (default 1)")
    parser.add_argument("--no-embeddings", action="store_true", help="leave out the embeddings and lm_head")
    options = parser.parse_args(arguments)
    try:
        written = write_checkpoint(
            options.out,
            like=options.like,
            layers=options.layers,
            dtype=options.dtype,
            shard_gib=options.shard_gib,
            seed=options.seed,
            scale=options.scale,
            embeddings=not options.no_embeddings,
        )
    except SpectrumFastError as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 2
    print(
        f"{written.path}: {written.n_tensors} tensors, {written.n_parameters:,} parameters, "
        f"{written.total_bytes / 2**30:.2f} GiB in {len(written.files)} file(s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
