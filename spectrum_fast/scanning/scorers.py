"""Loaded weights to records: one by one on the CPU, matrices of one shape together on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.measure.ops.band.device_graph import RECORDINGS
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.ops.decode.coded import CodedWeight, as_coded
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.record import Criterion, Spectrum
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import LoadedWeight
from spectrum_fast.scanning.memory import is_out_of_memory
from spectrum_fast.scanning.results import (
    Compute,
    ModuleResult,
    attempt,
    ends_scan,
    record_of,
    score_loaded,
)

BATCH_BYTES = 4 << 30
"""Weights, Gram matrices and workspace of matrices that wait for each other: 64 experts of 2048 x 7168 take 3 GB, and
fill a GPU; one 8192-wide matrix takes 1 GB."""
MOST_TOGETHER = 64


class Scorer(Protocol):
    """What turns weights into records, at once or in batches."""

    def add(self, loaded: LoadedWeight, wait_seconds: float) -> Iterator[ModuleResult]:
        """Take a weight; gives what is finished by it. The weight's memory may be used again afterwards."""
        ...

    def finish(self) -> Iterator[ModuleResult]:
        """What is still waiting."""
        ...


def or_on_cpu(compute: Compute) -> Compute:
    """The same function, which goes to the CPU with a matrix that a GPU's memory does not hold; the reason says so."""

    def compute_somewhere(matrix: Tensor | BlockMatrix) -> Spectrum:
        try:
            return compute(matrix)
        except Exception as error:
            if not isinstance(matrix, Tensor) or matrix.device.type == "cpu" or not is_out_of_memory(error):
                raise
        RECORDINGS.forget()
        return _moved(compute(matrix.cpu()))

    return compute_somewhere


def _moved(found: Spectrum) -> Spectrum:
    return replace(found, reason=f"{found.reason}; on the CPU, the GPU's memory did not hold it")


class OneByOne:
    """Each weight by itself, at once.

    Args:
        compute: from a matrix to its spectrum.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    def add(self, loaded: LoadedWeight, wait_seconds: float) -> Iterator[ModuleResult]:
        """See :meth:`Scorer.add`."""
        began = time.perf_counter()
        record = score_loaded(loaded, self._compute)
        yield ModuleResult(record, loaded.read_seconds, wait_seconds, time.perf_counter() - began)

    def finish(self) -> Iterator[ModuleResult]:
        """Nothing waits."""
        return iter(())


@dataclass(frozen=True)
class _Waiting:
    """A weight that waits for others of its shape, in its codes where kernels may take these."""

    plan: WeightPlan
    weight: Tensor | CodedWeight
    read_seconds: float
    wait_seconds: float
    digest: str


class Together:
    """Weights of one shape and type are collected and scored as a batch; the rest as :class:`OneByOne` does.

    A batch that fails is halved, down to the matrix at fault. One that the device's memory does not hold even alone is
    scored on the CPU, and its note says so.

    Args:
        criterion: the rule that splits signal from noise.
        tolerance: relative accuracy wanted.
        alone: from a matrix to its spectrum, for matrices in blocks.
        most: matrices in a batch.
        batch_bytes: device memory that waiting matrices may take, their Gram matrices included.
    """

    def __init__(
        self,
        criterion: Criterion,
        tolerance: float,
        alone: Compute,
        *,
        most: int = MOST_TOGETHER,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._criterion = criterion
        self._tolerance = tolerance
        self._alone = OneByOne(alone)
        self._most = most
        self._batch_bytes = batch_bytes
        self._waiting: dict[tuple[tuple[int, ...], torch.dtype], list[_Waiting]] = {}

    def add(self, loaded: LoadedWeight, wait_seconds: float) -> Iterator[ModuleResult]:
        """See :meth:`Scorer.add`."""
        if isinstance(loaded.main, BlockMatrix):
            yield from self._alone.add(loaded, wait_seconds)
            return
        try:
            weight = as_coded(loaded.plan, loaded.main, loaded.companions)
            if weight is None:
                weight = decode_weight(loaded.plan, loaded.main, loaded.companions)
            # The stream uses its memory again; a decoded weight may be a view of it.
            waiting = _Waiting(loaded.plan, weight.clone(), loaded.read_seconds, wait_seconds, loaded.digest)
        except Exception:  # noqa: BLE001 - told, or raised again, by the other scorer
            waiting = None
        if waiting is None or len(waiting.weight.shape) != 2:
            yield from self._alone.add(loaded, wait_seconds)
            return
        key = (tuple(waiting.weight.shape), waiting.weight.dtype)
        batch = self._waiting.setdefault(key, [])
        batch.append(waiting)
        if len(batch) >= self._most or self._waiting_bytes() > self._batch_bytes:
            largest = max(self._waiting, key=lambda other: sum(map(_bytes, self._waiting[other])))
            yield from self._score(self._waiting.pop(key if len(batch) >= self._most else largest))

    def finish(self) -> Iterator[ModuleResult]:
        """See :meth:`Scorer.finish`."""
        while self._waiting:
            yield from self._score(self._waiting.pop(next(iter(self._waiting))))

    def _waiting_bytes(self) -> int:
        return sum(_bytes(one) for batch in self._waiting.values() for one in batch)

    def _score(self, batch: list[_Waiting]) -> Iterator[ModuleResult]:
        began = time.perf_counter()
        spectra = self._spectra([one.weight for one in batch])
        seconds = (time.perf_counter() - began) / len(batch)
        for one, found in zip(batch, spectra, strict=True):
            record = attempt(one.plan, one.digest, partial(record_of, one.plan, tuple(one.weight.shape), found))
            yield ModuleResult(record, one.read_seconds, one.wait_seconds, seconds)

    def _spectra(self, weights: Sequence[Tensor | CodedWeight]) -> list[Spectrum | Exception]:
        try:
            return compute_spectra(weights, self._criterion, tolerance=self._tolerance)
        except Exception as error:
            if ends_scan(error):
                raise
            # The frames of a traceback would hold the very memory that is lacking.
            problem = error.with_traceback(None) if is_out_of_memory(error) else error
        if is_out_of_memory(problem):
            RECORDINGS.forget()
        if len(weights) > 1:  # smaller batches need less memory, and leave out whichever of them is at fault
            half = len(weights) // 2
            return [*self._spectra(weights[:half]), *self._spectra(weights[half:])]
        if not is_out_of_memory(problem) or weights[0].device.type == "cpu":
            return [problem]
        return [_moved(one) if isinstance(one, Spectrum) else one for one in self._spectra([weights[0].cpu()])]


def _bytes(one: _Waiting) -> int:
    """Of the weight, and in the reduction: the Gram matrix, a copy of it and its workspace."""
    side = min(one.weight.shape)
    return one.weight.nbytes + 3 * 4 * side * side
