"""Loaded weights to records: one by one, or matrices of one shape together: all on a GPU, small ones on a CPU."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.ops.decode.coded import coded_parts, from_parts
from spectrum_fast.measure.ops.device_graph import RECORDINGS, recording
from spectrum_fast.measure.ops.dispatch import set_threads, thread_count
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import as_matrix, compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.measure.spectra.schedule import ADAPTIVE, MOST_TOGETHER
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import LoadedWeight
from spectrum_fast.read.stream.device import SideStream
from spectrum_fast.read.stream.layout import ALIGNMENT, round_up
from spectrum_fast.read.stream.ring import Region, Ring
from spectrum_fast.scanning.combination import SubspaceOverlap, overlap_with_base
from spectrum_fast.scanning.memory import is_out_of_memory
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.results import (
    Compute,
    ModuleResult,
    attempt,
    ends_scan,
    failure_of,
    record_of,
    score_loaded,
)

BATCH_SHARE = 5
"""A batch takes one part in this many of the device's free memory, workspace included: 16 GiB of 80. The weights of
others may take as much again."""
CPU_BATCH_BYTES, CPU_THREAD_BYTES = 64 << 20, 32 << 20
"""Of a batch on a CPU, where as many are in work at once as it has threads; and what each thread may have waiting of
weights beside the two batches that any device may."""
ONE_CORE_ENTRIES = 1 << 23
"""Matrices of no more go one to a core, which takes a third of a second for 2048 x 4096: cores that share out a matrix
wait for each other at every panel and for the one that does what lies between kernels, which costs 1024 x 4096 a sixth
of its time on two cores and half on sixteen (bench/scaling.py). Not by how many there are: a part of a scan has the
bits of the whole."""
GPU_MOST_TOGETHER = 64
SCORING_THREADS = 2
"""On a GPU, each with a stream of its own: slices of one batch wait for their chains while products of the next run."""
LEAST_BATCHES = 16
"""Of each kind of weight, as far as there are so many: the first is scored after a sixteenth of the reading, or one of
the scoring is left when all is read. So both together take at most 17/16 of the longer one."""
CPU_LEAST_TOGETHER = 4
"""On a CPU a batch takes its thread's share of what is left of its kind, so that threads come to an end together; but
no less than this, below which what lies between kernels costs more than the end gains."""
THREAD_NAME = "spectrum-fast-score"


def make_compute(options: ScanOptions) -> Compute:
    """The function from a matrix to its spectrum under these options.

    With a matrix that a GPU's memory does not hold it goes to the CPU; the reason says so.
    """
    compute = partial(
        compute_spectrum,
        criterion=find_criterion(options.criterion),
        method=options.method,
        precision=options.precision,
        tolerance=options.tolerance,
        all_values=options.spectra,
    )

    def compute_somewhere(matrix: Tensor | BlockMatrix | FactoredMatrix) -> Spectrum:
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


class Scorer:
    """Turns weights into records: each by itself, at once.

    Args:
        options: what is scored, how, and on which device; the SVD of an adapter's core is no work for one.
    """

    def __init__(self, options: ScanOptions) -> None:
        self._options = options
        self._compute = make_compute(options)

    def add(self, loaded: LoadedWeight) -> Iterator[ModuleResult]:
        """Take a weight; gives what has been finished. The weight's memory may be used again afterwards."""
        began = time.perf_counter()
        record = score_loaded(loaded.on("cpu" if loaded.plan.in_factors else self._options.device), self._compute)
        yield ModuleResult(record, loaded.read_seconds, loaded.wait_seconds, time.perf_counter() - began)

    def finish(self) -> Iterator[ModuleResult]:
        """What is still waiting."""
        return iter(())

    def close(self) -> None:
        """Give up what is not scored yet."""


@dataclass(frozen=True)
class _Waiting:
    """What a record needs of a weight beside its numbers."""

    plan: WeightPlan
    shape: tuple[int, ...]
    digest: str
    overlap: SubspaceOverlap | None
    read_seconds: float
    wait_seconds: float


@dataclass
class _Batch:
    """Weights of one shape and type, side by side where they are scored.

    Attributes:
        memory: (room, rows, columns) numbers; or codes, and their scales.
        region: where that lies in a ring, if it does.
        waiting: whose they are; the first of the room.
    """

    memory: tuple[Tensor, ...]
    region: Region | None = None
    waiting: list[_Waiting] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Of the memory, used or not."""
        return sum(part.nbytes for part in self.memory)

    @property
    def weights(self) -> Tensor | list[Codes]:
        """Those that are there."""
        parts = [part[: len(self.waiting)] for part in self.memory]
        return parts[0] if len(parts) == 1 else [from_parts(*one) for one in zip(*parts, strict=True)]


_Scored: TypeAlias = "list[ModuleResult] | None"


class Together(Scorer):
    """Weights of one shape and type are copied side by side, and scored as a batch by threads that do nothing else.

    So the caller's thread can go on to read and copy: as far as the bytes of batches that wait or are scored allow.
    Where a batch has no room any more the scoring threads are waited for; where they have nothing to do, one gets the
    largest batch as it is. A batch that fails is halved, down to the matrix at fault. A matrix that the device's memory
    does not hold even alone is scored on the CPU, and its note says so.

    On a CPU each thread computes a batch on one core: threads that share out a small matrix spend more time in waiting
    for each other than in work. So the bits of its score depend neither on the number of threads nor on its neighbours.
    Batches lie in a ring, whose memory is warm, and one waits for each of the threads beside the one in work.
    Large matrices, for which all threads are needed, are scored by the caller's, once nothing else is, and so are those
    in factors, which have no numbers to be put beside others. Until the scorer is closed the caller's thread has one
    core, too, beside those: threads that helped it to copy a weight would wait for its next one on cores that score.

    Args:
        options: what is scored, how, and on which device.
        prepare: called by a scoring thread before any weight is scored; what it raises ends the scan.
        plans: the weights to come, if known; see :data:`LEAST_BATCHES`.
        threads: that score, on a CPU.
    """

    def __init__(
        self,
        options: ScanOptions,
        *,
        prepare: Callable[[], None] | None = None,
        plans: Iterable[WeightPlan] = (),
        threads: int | None = None,
    ) -> None:
        super().__init__(options)
        self._side = SideStream(options.device)
        self._of_kind = Counter(map(_kind_of, plans))
        self._most = MOST_TOGETHER if threads else GPU_MOST_TOGETHER
        self._batch_bytes = batch_bytes_on(options.device)
        self._open: dict[object, _Batch] = {}
        self._held_bytes = 0
        self._scoring: dict[Future[_Scored], _Batch | None] = {}
        self._cores = torch.get_num_threads() if threads else 0
        self._most_held_bytes = 2 * self._batch_bytes + (threads or 0) * CPU_THREAD_BYTES
        self._most_waiting = 2 * threads if threads else math.inf
        self._ring = Ring(self._most_held_bytes, poison=options.stream.poison) if threads else None
        self._least_batches, self._least_together = (threads, CPU_LEAST_TOGETHER) if threads else (LEAST_BATCHES, 1)
        if threads:
            self._threads = ThreadPoolExecutor(threads, THREAD_NAME, initializer=partial(set_threads, 1))
            set_threads(1)
        else:
            threads = 1 if self._side.device.type == "cpu" else SCORING_THREADS
            self._threads = ThreadPoolExecutor(threads, THREAD_NAME, initializer=self._side.own_stream)
        self._prepared: Future[_Scored] | None = None
        self._prepared = None if prepare is None else self._submit(prepare)

    def add(self, loaded: LoadedWeight) -> Iterator[ModuleResult]:
        """See :meth:`Scorer.add`."""
        in_blocks = isinstance(loaded.main, BlockMatrix)
        if loaded.plan.in_factors or (self._cores and (in_blocks or not _has_one_core(loaded.plan))):
            yield from self._collect(0)
            with thread_count(self._cores or None):
                results = list(super().add(loaded))
            yield from results
            return
        if in_blocks:  # is read by whoever scores it, so that nobody else may read
            self._submit(lambda: list(Scorer.add(self, loaded)))
            yield from self._collect(0)
            return
        try:
            parts, shape = self._tensors_of(loaded)
            with self._side.done():
                overlap = overlap_with_base(loaded, self._side.device)
        except Exception as error:  # noqa: BLE001 - told, or raised again
            yield _failed(loaded, error)
            return
        key, kind = tuple((part.shape, part.dtype) for part in parts), _kind_of(loaded.plan)
        if key not in self._open:
            opened = yield from self._open_batch(parts, self._of_kind[kind])
            if opened is None:
                yield _failed(loaded, MemoryError())
                return
            self._open[key] = opened
        batch = self._open[key]
        with self._side.done(parts[0]):
            for part, memory in zip(parts, batch.memory, strict=True):
                memory[len(batch.waiting)].copy_(part, non_blocking=True)
        if self._cores:
            self._of_kind[kind] -= 1
        times = loaded.read_seconds, loaded.wait_seconds
        batch.waiting.append(_Waiting(loaded.plan, shape, loaded.digest, overlap, *times))
        if len(batch.waiting) == len(batch.memory[0]):
            self._hand_over(key)
        yield from self._collect(len(self._scoring))

    def finish(self) -> Iterator[ModuleResult]:
        """See :meth:`Scorer.finish`; the largest batches first, so that threads come to an end together."""
        for key in sorted(self._open, key=lambda key: self._open[key].nbytes, reverse=True):
            self._hand_over(key)
        yield from self._collect(0)

    def close(self) -> None:
        """See :meth:`Scorer.close`; waits for the batch in work, and gives back what recordings keep."""
        self._threads.shutdown(cancel_futures=True)
        if self._side.device.type != "cpu":
            RECORDINGS.forget()
        if self._cores:
            set_threads(self._cores)

    def _tensors_of(self, loaded: LoadedWeight) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """What of a weight is scored, and the shape that its record states."""
        try:
            with self._side.done(loaded.main if isinstance(loaded.main, Tensor) else None):
                parts = _decoded(loaded, self._side.device)
        except Exception as error:
            if not is_out_of_memory(error) or self._side.device.type == "cpu":
                raise
            parts = _decoded(loaded, torch.device("cpu"))
        if len(parts) == 1:
            return (as_matrix(parts[0]),), tuple(parts[0].shape)
        return parts, from_parts(*parts).shape

    def _open_batch(self, parts: tuple[Tensor, ...], of_kind: int) -> Generator[ModuleResult, None, _Batch | None]:
        """Memory for weights like this one, as many as may go together; None where there is none even for this one.

        Gives what is scored while it waits for it.
        """
        weight = sum(part.nbytes for part in parts)
        most = self._most
        if of_kind > 0:
            most = min(most, of_kind, max(self._least_together, -(-of_kind // self._least_batches)))
        room = max(1, min(most, self._batch_bytes // bytes_in_work(parts)))
        if self._cores and not ADAPTIVE.takes_together(_shape_of(parts)):
            room = 1
        while self._is_full(room * weight) and (self._scoring or self._open):
            if not self._scoring:
                self._hand_over(max(self._open, key=lambda key: self._open[key].nbytes))
            yield from self._collect(len(self._scoring) - 1)
        batch = self._allocate(parts, room, self._side.device)
        if batch is None:
            yield from self.finish()
            RECORDINGS.forget()
            batch = self._allocate(parts, 1, self._side.device) or self._allocate(parts, 1, torch.device("cpu"))
        self._held_bytes += 0 if batch is None else batch.nbytes
        return batch

    def _is_full(self, nbytes: int) -> bool:
        """Whether so many more bytes have to wait for a batch to be scored."""
        return self._held_bytes + nbytes > self._most_held_bytes or len(self._scoring) >= self._most_waiting

    def _allocate(self, parts: tuple[Tensor, ...], room: int, device: torch.device) -> _Batch | None:
        """None where there is no memory for it."""
        sizes = [round_up(room * part.nbytes, ALIGNMENT) for part in parts]
        if self._ring is not None and (region := self._ring.allocate(sum(sizes))) is not None:
            memory = []
            for part, place in zip(parts, accumulate(sizes, initial=region.begin), strict=False):
                raw = self._ring.bytes[place : place + room * part.nbytes]
                memory.append(raw.view(part.dtype).view(room, *part.shape))
            return _Batch(tuple(memory), region)
        try:
            with self._side.done():
                return _Batch(tuple(torch.empty(room, *part.shape, dtype=part.dtype, device=device) for part in parts))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _hand_over(self, key: object) -> None:
        """To the scoring thread."""
        batch = self._open.pop(key)
        self._submit(partial(self._score, batch), batch)

    def _submit(self, work: Callable[[], _Scored], batch: _Batch | None = None) -> Future[_Scored]:
        future = self._threads.submit(copy_context().run, self._once_prepared, work, self._prepared)
        self._scoring[future] = batch
        return future

    @staticmethod
    def _once_prepared(work: Callable[[], _Scored], prepared: Future[_Scored] | None) -> _Scored:
        """Whatever is wrong with a device ends the scan before a weight is scored."""
        if prepared is not None:
            prepared.result()
        return work()

    def _collect(self, most_left: int) -> Iterator[ModuleResult]:
        """What is scored; waits until no more than so many batches are not."""
        while self._scoring:
            scored = [future for future in self._scoring if future.done()]
            if not scored:
                if len(self._scoring) <= most_left:
                    return
                scored = wait(self._scoring, return_when=FIRST_COMPLETED).done
            for future in scored:
                batch, results = self._scoring.pop(future), future.result()
                if batch is not None:
                    self._held_bytes -= batch.nbytes
                    if self._ring is not None and batch.region is not None:
                        self._ring.release(batch.region)
                yield from results or ()

    def _score(self, batch: _Batch) -> list[ModuleResult]:
        began = time.perf_counter()
        self._side.hand_over(batch.memory)
        spectra = self._spectra(batch.weights)
        if batch.memory[0].device.type != self._side.device.type:
            spectra = [_moved(one) if isinstance(one, Spectrum) else one for one in spectra]
        seconds = (time.perf_counter() - began) / len(spectra)
        results = []
        for one, found in zip(batch.waiting, spectra, strict=True):
            record = attempt(one.plan, one.digest, partial(record_of, one.plan, one.shape, found, one.overlap))
            results.append(ModuleResult(record, one.read_seconds, one.wait_seconds, seconds))
        return results

    def _spectra(self, weights: Tensor | Sequence[Tensor | Codes]) -> list[Spectrum | Exception]:
        try:
            with recording():
                rule, options = find_criterion(self._options.criterion), self._options
                return compute_spectra(
                    weights,
                    rule,
                    method=options.method,
                    precision=options.precision,
                    tolerance=options.tolerance,
                    all_values=options.spectra,
                )
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
        return [_moved(one) if isinstance(one, Spectrum) else one for one in self._spectra([weights[0].to("cpu")])]


def _has_one_core(plan: WeightPlan) -> bool:
    """Whether a CPU's cores take such matrices one each, or small ones several together, and share out none."""
    shape = plan.matrix_shape
    return shape is not None and len(shape) == 2 and math.prod(shape) <= ONE_CORE_ENTRIES


def _failed(loaded: LoadedWeight, error: Exception) -> ModuleResult:
    failure = replace(failure_of(loaded.plan, error), digest=loaded.digest or None)
    return ModuleResult(failure, loaded.read_seconds, loaded.wait_seconds)


def _decoded(loaded: LoadedWeight, device: torch.device) -> tuple[Tensor, ...]:
    """A weight's numbers, or its codes and their scales where kernels may take these.

    Where it lies, unless it has to be computed: that is done on the device.
    """
    plan, main = loaded.plan, loaded.main
    if isinstance(main, Tensor) and plan.decoder is not None:
        if main.dtype == torch.float8_e4m3fn or main.dim() == 3:  # FP8, MXFP4: nothing has to be computed yet
            coded = coded_parts(plan, main, loaded.companions)
            if coded is not None:
                return coded
        loaded = loaded.on(device)
    weight = decode_weight(plan, loaded.main, loaded.companions)
    return (weight,) if isinstance(weight, Tensor) else ()


def _kind_of(plan: WeightPlan) -> tuple[object, ...]:
    """Weights of one kind come to matrices of one shape and type."""
    return plan.main.shape, plan.main.dtype, plan.layout, plan.part


def bytes_in_work(parts: Sequence[Tensor]) -> int:
    """Of a weight, and in the reduction: the Gram matrix, a copy of it and its workspace."""
    return sum(part.nbytes for part in parts) + 3 * 4 * min(_shape_of(parts)) ** 2


def _shape_of(parts: Sequence[Tensor]) -> tuple[int, int]:
    shape = from_parts(*parts).shape if len(parts) == 2 else parts[0].shape
    return shape[0], shape[1]


def batch_bytes_on(device: str) -> int:
    """Memory that a batch may take on a device, with its Gram matrices and workspace."""
    if torch.device(device).type == "cpu":
        return CPU_BATCH_BYTES
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return free // BATCH_SHARE
