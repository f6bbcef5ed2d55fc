"""Weights with all that they are made of, read far ahead of their use into a bounded buffer."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.read.checkpoint.dtypes import require_decodable, storage_dtype
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream.batch import Batch
from spectrum_fast.read.stream.blocks import BlockReader
from spectrum_fast.read.stream.layout import GAP_BYTES, lay_out, region_bytes
from spectrum_fast.read.stream.options import MINIMUM_BUFFER_BYTES, StreamOptions
from spectrum_fast.read.stream.pipeline import Pipeline, too_large

STRETCH_BYTES = 32 << 20
"""Weights are read together up to this many bytes, four tasks, or a quarter of what is read ahead: so that every thread
has one, and the first weight waits for few others."""
_SHARE = 2
"""Plain matrices that are more than one part in this many of the budget are read by blocks: two of the largest fit."""


@dataclass(frozen=True)
class LoadedWeight:
    """The stored tensors of one weight, in memory and not yet decoded.

    Valid until :meth:`release`, or until the stream is asked for the next weight: then the memory is used again.

    Attributes:
        plan: what it is.
        main: the weight, or its codes, in the stored type and shape, in memory of the host; a :class:`BlockMatrix`
            where it is too large for the buffer, its blocks on the stream's device.
        companions: role -> tensor, as in the plan.
        read_seconds: time that the reading threads spent on it (its share of the stretch that it was read in); 0 for a
            matrix in blocks, which is yet to be read.
        wait_seconds: time that the consumer had to wait for it.
        digest: of all its stored bytes, where ``options.digests`` asked for it: SHA-256 over that of each tensor,
            companions by their roles, 32 hexadecimal digits of it. Empty for a matrix in blocks, of which no one sees
            all bytes in order.
    """

    plan: WeightPlan
    main: Tensor | BlockMatrix
    companions: Mapping[str, Tensor]
    read_seconds: float
    wait_seconds: float = 0.0
    digest: str = ""
    on_release: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def on(self, device: str | torch.device) -> LoadedWeight:
        """The same with its tensors on a device; a matrix in blocks, which come there by themselves, as it is."""
        if isinstance(self.main, BlockMatrix):
            return self
        companions = {role: tensor.to(device) for role, tensor in self.companions.items()}
        return replace(self, main=self.main.to(device), companions=companions)

    def release(self) -> None:
        """Say that the tensors are no longer needed; a second call does nothing."""
        self.on_release()


@dataclass(eq=False)
class _Stretch:
    """Weights in work: a batch and the plans that are still to be handed out of it."""

    plans: deque[WeightPlan]
    batch: Batch | None = None
    nbytes: int = 0


class WeightStream(Iterator[LoadedWeight]):
    """Iterator over the weights of some plans; see :func:`stream_weights`.

    Plans are taken and memory is given back in the thread that iterates, and only there: memory comes free only when
    the consumer moves on, so that is when there is something to plan.

    Attributes:
        statistics: counts so far; final once the stream is exhausted or closed.
        failed: the weight that the last error was about, if the stream goes on with the next one; None where it ended.
    """

    def __init__(self, plans: Iterable[WeightPlan], pipeline: Pipeline) -> None:
        self.statistics = pipeline.statistics
        self._plans = iter(plans)
        self._pipeline = pipeline
        self._returned: WeightPlan | None = None  # taken from the plans, belongs to the next stretch
        self._waiting: _Stretch | None = None  # put together, waits for memory
        self._stretches: deque[_Stretch] = deque()
        self._release_held: Callable[[], None] = lambda: None
        self._closed = False
        self.failed: WeightPlan | None = None

    def __next__(self) -> LoadedWeight:
        waiting_since = time.perf_counter()
        self._release_held()
        self.failed = None
        if self._closed:
            raise StopIteration
        try:
            self._plan_ahead()
            loaded = self._hand_out(waiting_since)
        except BaseException:
            if self.failed is None:
                self.close()
            raise
        self._release_held = loaded.on_release
        return loaded

    def close(self) -> None:
        """Stop reading, give all memory back and close the files; a weight in hand is no longer valid."""
        if self._closed:
            return
        self._pipeline.interrupt()
        self._release_held()
        self._closed = True
        self._pipeline.close()
        for stretch in self._stretches:
            if stretch.batch is not None:
                stretch.batch.release()
        self._stretches.clear()
        self._waiting = self._returned = None

    def __enter__(self) -> WeightStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _plan_ahead(self) -> None:
        """Start as many stretches as the plans, the budget and the read-ahead allow; at least the one that is next."""
        pipeline = self._pipeline
        while not (self._stretches and self._stretches[-1].batch is None):  # nothing is read past a matrix in blocks
            stretch = self._waiting = self._waiting or self._next_stretch()
            if stretch is None:
                return
            if not self._is_large(stretch.plans[0]):
                if self._exceeds_window(stretch.nbytes):
                    return
                layout = lay_out([part for plan in stretch.plans for part in plan.refs], direct=pipeline.direct)
                stretch.batch = pipeline.start(layout)
                if stretch.batch is None:
                    if not self._stretches:
                        raise too_large(stretch.plans[0].main, layout.nbytes, pipeline.ring.capacity_bytes)
                    return
            self._stretches.append(stretch)
            self._waiting = None

    def _next_stretch(self) -> _Stretch | None:
        """The next plans that are read together; None if there are none, or none may be taken yet."""
        if self._exceeds_window(1):
            return None
        stretch = _Stretch(deque())
        most = min(STRETCH_BYTES, self._pipeline.ring.capacity_bytes // 4, self._pipeline.window_bytes // 4)
        while (plan := self._returned or next(self._plans, None)) is not None:
            large = self._is_large(plan)
            again = bool(stretch.plans) and stretch.plans[-1].main == plan.main  # another part of what is read anyway
            self._returned = plan
            if stretch.plans and not again and (large or stretch.nbytes + plan.nbytes > most):
                break
            self._returned = None
            stretch.plans.append(plan)
            stretch.nbytes += 0 if again else plan.nbytes
            if large:
                break
        return stretch if stretch.plans else None

    def _exceeds_window(self, nbytes: int) -> bool:
        """Whether reading so much more would be too far ahead; one stretch beside the one in use never is."""
        ahead = self._pipeline.ring.in_use_bytes + nbytes
        return len(self._stretches) > 1 and ahead > self._pipeline.window_bytes

    def _is_large(self, plan: WeightPlan) -> bool:
        """Whether a weight is read by blocks, because it is too large a part of the budget."""
        return plan.comes_in_blocks and plan.nbytes > self._pipeline.ring.capacity_bytes // _SHARE

    def _hand_out(self, waiting_since: float) -> LoadedWeight:
        if not self._stretches:
            raise StopIteration
        stretch = self._stretches[0]
        plan, batch = stretch.plans.popleft(), stretch.batch
        if batch is None:
            self._stretches.popleft()
            self.statistics.weights_in_blocks += 1
            reader = BlockReader(self._pipeline, plan)
            waited = time.perf_counter() - waiting_since
            return LoadedWeight(plan, reader.matrix(), {}, 0.0, waited, on_release=reader.close)
        batch.await_read(plan.refs)
        waited = time.perf_counter() - waiting_since
        release = _once(partial(_take_back, self._stretches, self._pipeline, stretch, batch, plan))
        read_seconds = batch.read_seconds * plan.nbytes / max(1, stretch.nbytes)
        try:
            return made_of(plan, batch, read_seconds, waited, release)
        except Exception:  # its bytes are there: the others have nothing to do with it
            self.failed, self._release_held = plan, release
            raise


def stream_weights(plans: Iterable[WeightPlan], options: StreamOptions | None = None) -> WeightStream:
    """Read weights in the given order, by several threads, ahead of the consumer, into a buffer of fixed size.

    Codes and companions of a weight are read together; companions may lie in another file. Weights that lie side by
    side are read in long stretches; an expert of a fused tensor counts as one weight. Memory does not grow with the
    model: all that was read and is not yet done with lies in one ring of ``options.capacity_bytes``. A plain matrix
    larger than half of it comes as a :class:`BlockMatrix`, whose blocks are read as they are used.

    A weight is valid until the next one is asked for or its ``release`` is called. Close the stream (or let it go) to
    stop early: the threads end within a chunk and the files are closed.

    Args:
        plans: what to read; file order is fastest. Advanced only in the caller's thread, as far as the budget
            calls for.
        options: how to read; None for all defaults.

    Returns:
        An iterator of :class:`LoadedWeight`, with ``close()`` and ``statistics``.

    Raises:
        BackendUnavailableError: the device is not there, or direct I/O was asked for by name and is refused.
        UnsupportedDtypeError: a storage type that no decoder takes. Like any error in making the tensors of one weight,
            it is raised in that weight's turn, ``failed`` of the stream names the weight, and the stream goes on.
        UsageError: a packed weight is larger than the budget; raised in that weight's turn.
        CheckpointError: a file cannot be read, is shorter than its header said, or has changed; in its turn.
    """
    return WeightStream(plans, Pipeline(options or StreamOptions()))


def made_of(
    plan: WeightPlan,
    batch: Batch,
    read_seconds: float,
    wait_seconds: float = 0.0,
    release: Callable[[], None] = lambda: None,
) -> LoadedWeight:
    """A weight of what was read: its tensors are views, to be given back by ``release``.

    Raises:
        UnsupportedDtypeError: a storage type that no decoder takes.
    """
    if plan.decoder is None:
        require_decodable(plan.main)
    main = batch.tensor(plan.main, storage_dtype(plan.main))
    companions = {role: batch.tensor(part, storage_dtype(part)) for role, part in plan.companions.items()}
    return LoadedWeight(plan, main, companions, read_seconds, wait_seconds, _digest_of(plan, batch), release)


def required_buffer_bytes(plans: Iterable[WeightPlan]) -> int:
    """The smallest budget that serves these plans: packed weights are decoded whole, plain ones may come in blocks."""
    packed = (plan for plan in plans if not plan.comes_in_blocks)
    room = (sum(region_bytes(part.nbytes) for part in plan.refs) + len(plan.companions) * GAP_BYTES for plan in packed)
    return max(MINIMUM_BUFFER_BYTES, max(room, default=0))


def _digest_of(plan: WeightPlan, batch: Batch) -> str:
    digests = [(role, batch.digests.get(ref, b"")) for role, ref in [("", plan.main), *sorted(plan.companions.items())]]
    if not all(digest for _, digest in digests):
        return ""
    return hashlib.sha256(b"".join(role.encode() + b"\0" + digest for role, digest in digests)).hexdigest()[:32]


def _take_back(
    stretches: deque[_Stretch], pipeline: Pipeline, stretch: _Stretch, batch: Batch, plan: WeightPlan
) -> None:
    """The consumer is done with a weight; with the last of its stretch the memory goes back.

    Without the stream itself, which a weight must not keep; once that is closed there is nothing to give back.
    """
    if stretch not in stretches:
        return
    if stretch.plans:
        if pipeline.options.poison:
            batch.poison(plan.main, [part for later in stretch.plans for part in later.refs])
        return
    stretches.remove(stretch)
    pipeline.dispose(batch)


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """A function that makes the call the first time only."""
    left = [call]

    def run() -> None:
        if left:
            left.pop()()

    return run
