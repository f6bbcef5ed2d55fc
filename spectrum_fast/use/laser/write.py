"""A checkpoint with some matrices replaced, written tensor by tensor into a new folder, whole or not at all.

Types and shapes stay, so headers, shards and index stay too: a shard is its old header and its old bytes, but for the
bytes of the replaced matrices. One tensor is in memory at a time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import torch

from spectrum_fast.errors import CheckpointError, TensorError, UsageError
from spectrum_fast.measure.spectra.lowrank import LowRankSvd, svd_lowrank
from spectrum_fast.read.checkpoint import Checkpoint, TensorRef
from spectrum_fast.read.checkpoint.folder import require_inside
from spectrum_fast.read.checkpoint.layout import PICKLES
from spectrum_fast.read.stream import load_tensor
from spectrum_fast.temporary import flush, temporary_beside
from spectrum_fast.use.laser.pissa import FOLDER, split, write_adapter
from spectrum_fast.use.laser.targets import LaserTarget
from spectrum_fast.version import __version__

Factors: TypeAlias = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module -> B and A of its low-rank part."""
REPORT_NAME = "laser.json"
_CHUNK_BYTES = 16 << 20
_PASSES, _PASSES_FOR_ADAPTER = 8, 4
"""Of the randomized SVD; its error against the best approximation falls with each. Four leave no more than 16 passes of
PEFT's own do (docs/laser.md)."""
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", *PICKLES)
"""Files of a model folder that hold weights: only safetensors are written anew, the others would be out of date."""


@dataclass(frozen=True)
class LaserRecord:
    """What became of one matrix.

    Attributes:
        module: its name.
        parameter: the stored tensor.
        rank: singular values kept.
        full_rank: the shorter side.
        relative_error: ``||W - W'||_F / ||W||_F`` of the factors, before W' is rounded to the stored type.
        numbers: in the two factors, ``rank (m + n)``, where the whole has ``m n``; the file keeps the whole.
        whole: numbers in the whole matrix.
    """

    module: str
    parameter: str
    rank: int
    full_rank: int
    relative_error: float
    numbers: int
    whole: int


def write_laser(
    checkpoint: Checkpoint,
    targets: Sequence[LaserTarget],
    out: str | os.PathLike[str],
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[LaserRecord], None] | None = None,
    adapter: Mapping[str, str] | None = None,
) -> tuple[LaserRecord, ...]:
    """Write the checkpoint with every target at its rank.

    Matrices are ``U diag(s) V^T`` of the leading triplets (:func:`spectrum_fast.svd_lowrank`), rounded once to the
    stored type. All other tensors, the headers, the index and the files beside them are copied byte for byte;
    ``laser.json`` lists what was done.

    Args:
        checkpoint: opened from local files.
        targets: from :func:`spectrum_fast.use.laser.choose_targets`.
        out: folder to make; must not exist.
        facts: more entries for ``laser.json``.
        progress: called after each matrix.
        adapter: module -> its name in the running model. With it, what is written is the rest, ``W - U diag(s) V^T``,
            and the factors as an adapter in the folder ``pissa_init`` (:mod:`spectrum_fast.use.laser.pissa`): base and
            adapter make W, to the rounding of the rest to the stored type.

    Returns:
        one record a target, in file order.

    Raises:
        UsageError: nothing to do, or ``out`` exists or lies where it cannot be made.
        CheckpointError: a file cannot be read or copied, or the checkpoint is remote.
        TensorError: a matrix holds NaN or infinity. Nothing is left at ``out`` in any of these cases.
    """
    target = Path(os.path.abspath(out))
    _require_free(target)
    if not targets:
        raise UsageError("there is no matrix to replace: every chosen one would keep all of its singular values")
    files = [_local(path) for path in checkpoint.files]
    wanted: dict[str, list[LaserTarget]] = {}
    for each in targets:
        wanted.setdefault(each.parameter, []).append(each)
    records: list[LaserRecord] = []
    factors: Factors | None = None if adapter is None else {}

    def replaced(ref: TensorRef) -> torch.Tensor:
        tensor, made = _replace(ref, wanted[ref.name], factors)
        for record in made:
            records.append(record)
            if progress is not None:
                progress(record)
        return tensor

    try:
        with temporary_beside(target, folder=True) as (folder, _):
            for file in files:
                refs = [ref for ref in checkpoint.tensors if ref.file == file and ref.name in wanted]
                _write_shard(file, refs, folder / file.name, replaced)
            _copy_rest(checkpoint, files, folder)
            if adapter is not None and factors is not None:
                write_adapter(folder / FOLDER, factors, adapter, target)
            document = {
                "schema": 1,
                "kind": "laser" if adapter is None else "pissa",
                "spectrum_fast": __version__,
                "model": checkpoint.name,
                "fingerprint": checkpoint.fingerprint,
                **(facts or {}),
                "modules": [asdict(record) for record in records],
            }
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
            (folder / REPORT_NAME).write_text(text, encoding="utf-8")
            for path in (*folder.rglob("*"), folder):
                flush(path)
            os.rename(folder, target)
            flush(target.parent)
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot be written: {error.strerror or error}; nothing was left there; make room or choose "
            "another place"
        ) from error
    return tuple(records)


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{target}: is there already; a checkpoint is never changed in place: choose a new folder")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}; make it first or choose another")


def _local(path: object) -> Path:
    if not isinstance(path, Path):
        raise CheckpointError(f"{path}: expected a file on this machine; download the checkpoint first")
    return path


def _write_shard(
    source: Path, refs: Sequence[TensorRef], target: Path, replaced: Callable[[TensorRef], torch.Tensor]
) -> None:
    """One shard: its header and bytes copied up to each of these tensors, which is computed and written instead."""
    with source.open("rb") as old, target.open("xb") as new:
        position = 0
        for ref in refs:
            _copy(old, new, position, ref.begin, source)
            new.write(replaced(ref).contiguous().view(torch.uint8).numpy().data)
            position = ref.begin + ref.nbytes
        _copy(old, new, position, os.fstat(old.fileno()).st_size, source)


def _copy(old: BinaryIO, new: BinaryIO, begin: int, end: int, source: Path) -> None:
    old.seek(begin)
    left = end - begin
    while left:
        chunk = old.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise CheckpointError(f"{source}: ended at byte {end - left}, expected {end}: truncated while being read")
        new.write(chunk)
        left -= len(chunk)


def _replace(
    ref: TensorRef, targets: Sequence[LaserTarget], factors: Factors | None
) -> tuple[torch.Tensor, list[LaserRecord]]:
    """The tensor with its targets at their ranks, or with what is left of them; experts are factored together."""
    tensor = load_tensor(ref)
    matrices = [tensor if target.expert is None else tensor[target.expert] for target in targets]
    passes = _PASSES if factors is None else _PASSES_FOR_ADAPTER
    try:
        found = cast("list[LowRankSvd]", svd_lowrank(matrices, max(t.rank for t in targets), n_iter=passes))
    except TensorError as error:
        raise TensorError(f"{ref.name} in {ref.file}: {error}") from error
    records = []
    for target, matrix, triplets in zip(targets, matrices, found, strict=True):
        assert triplets.u is not None  # noqa: S101 - vectors were asked for
        assert triplets.vh is not None  # noqa: S101
        kept = min(target.rank, triplets.rank)
        b, a = split(triplets.u[:, :kept], triplets.s[:kept], triplets.vh[:kept])
        # What PEFT adds to a base of two bytes a number it adds in float32 too, far below the rounding to that type.
        working = torch.float32 if factors is not None and matrix.itemsize == 2 else torch.float64
        low = b.to(working) @ a.to(working)
        rest = matrix.to(working) - low
        error = float(torch.linalg.vector_norm(rest, dtype=torch.float64))
        records.append(
            LaserRecord(
                module=target.module,
                parameter=target.parameter,
                rank=kept,
                full_rank=min(matrix.shape),
                relative_error=error / triplets.norm if triplets.norm else 0.0,
                numbers=kept * sum(matrix.shape),
                whole=matrix.numel(),
            )
        )
        if factors is not None:
            factors[target.module] = b, a
        matrix.copy_((low if factors is None else rest).to(matrix.dtype))
    return tensor, records


def _copy_rest(checkpoint: Checkpoint, files: Sequence[Path], part: Path) -> None:
    """What lies beside the weights of a model folder (config, tokenizer, index); other weights would be out of date.

    A single file that was named stands for itself: its neighbours may belong to anything.
    """
    if Path(checkpoint.source).is_file():
        return
    folder, names = files[0].parent, {file.name for file in files}
    for entry in sorted(folder.iterdir()):
        if entry.name in names or entry.name.startswith(".") or not entry.is_file():
            continue
        if not entry.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(require_inside(folder, entry.name), part / entry.name)
