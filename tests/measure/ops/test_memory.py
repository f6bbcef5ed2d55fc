"""Memory that is kept when what was large dies, and given to the next."""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import native_problem

if native_problem() is not None:
    pytest.skip("needs the compiled extension", allow_module_level=True)

from spectrum_fast import _native
from spectrum_fast.measure.ops.gram.native import gram
from spectrum_fast.measure.ops.memory import empty

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's allocator has it all")

MIB = 1 << 20
HUGE_PAGE = 2 * MIB
MOST_LARGE, MOST_SMALL = 256 * MIB, 16 * MIB
LIMIT_SECONDS = 60


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    _native.release_kept()
    assert _native.kept_bytes() == 0
    yield
    _native.release_kept()


def of_bytes(size: int) -> Tensor:
    return empty(size, dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(0,), (3, 5), (2, 700, 300), (1, 1024, 1025)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_an_empty_tensor_of_that_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = empty(*shape, dtype=dtype)
    assert (found.shape, found.dtype, found.is_contiguous()) == (torch.Size(shape), dtype, True)
    assert found.untyped_storage().nbytes() == found.nbytes
    found.fill_(1.0)
    assert found.sum() == found.numel() or dtype == torch.bfloat16


@pytest.mark.parametrize("size", [_native.POOLED_BYTES, MIB, HUGE_PAGE, 9 * MIB])
def test_memory_of_the_dead_is_given_to_the_next(size: int) -> None:
    first = of_bytes(size)
    place = first.data_ptr()
    assert place % (HUGE_PAGE if size >= HUGE_PAGE else 64) == 0
    view = first[5:]
    del first
    assert _native.kept_bytes() == 0  # a view is alive
    del view
    assert size <= _native.kept_bytes() <= size + HUGE_PAGE
    again = of_bytes(size)
    assert again.data_ptr() == place
    assert _native.kept_bytes() == 0
    assert of_bytes(size).data_ptr() != place


def test_of_what_fits_the_smallest_with_at_most_a_quarter_more() -> None:
    blocks = {size: of_bytes(size * MIB) for size in (40, 50, 44)}
    places = {size: block.data_ptr() for size, block in blocks.items()}
    blocks.clear()
    assert of_bytes(30 * MIB).data_ptr() not in places.values()
    forty = of_bytes(40 * MIB), of_bytes(40 * MIB), of_bytes(40 * MIB)
    assert [block.data_ptr() for block in forty] == [places[size] for size in (40, 44, 50)]


def test_no_page_is_faulted_in_again() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        of_bytes(32 * MIB).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(5)) < 8  # 16 of huge pages, 8192 of small ones


def test_what_is_kept_is_the_systems_to_take() -> None:
    def reclaimable() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree"))

    try:
        before = reclaimable()
    except (OSError, StopIteration):
        pytest.skip("the kernel does not say how much that is")
    block = of_bytes(64 * MIB).fill_(1)
    assert reclaimable() < before + 8 * MIB
    del block
    assert reclaimable() > before + 32 * MIB
    assert bool((of_bytes(64 * MIB).fill_(7) == 7).all())


def test_no_more_is_kept_than_is_said_and_the_oldest_goes_first() -> None:
    large, small = [of_bytes(48 * MIB) for _ in range(6)], [of_bytes(MIB) for _ in range(20)]
    places = [block.data_ptr() for block in large]
    while large:
        large.pop(0)
    assert _native.kept_bytes() == 5 * 48 * MIB <= MOST_LARGE < 6 * 48 * MIB
    small.clear()
    assert _native.kept_bytes() == 5 * 48 * MIB + MOST_SMALL
    assert {of_bytes(48 * MIB).data_ptr()} <= set(places[1:])
    taken = [of_bytes(48 * MIB) for _ in range(5)]
    assert {block.data_ptr() for block in taken} == set(places[1:])
    taken.clear()
    _native.release_kept()
    block = of_bytes(MOST_LARGE + HUGE_PAGE)
    del block
    assert _native.kept_bytes() == 0


def test_every_block_begins_as_nan_in_this_suite() -> None:
    """So that all other tests prove that no result depends on what was in its memory."""
    first = empty(1, 600, 600, dtype=torch.float64)
    assert first.isnan().all()
    first.fill_(1.0)
    place = first.data_ptr()
    del first
    again = empty(1, 600, 600, dtype=torch.float64)
    assert again.data_ptr() == place
    assert again.isnan().all()


def test_threads_share_no_block() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(1, 300 + 10 * i, 700, generator=generator) for i in range(8)]
    alone = [gram(weight, out_dtype=torch.float64) for weight in weights]

    def work(i: int) -> bool:
        mark = of_bytes(MIB + i).fill_(i)
        found = [gram(weights[i % 8], out_dtype=torch.float64) for _ in range(3)]
        return bool((mark == i).all()) and all(torch.equal(one, alone[i % 8]) for one in found)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(64)))


def test_more_than_there_is_is_an_error() -> None:
    for size in (1 << 60, (1 << 64) - 1):
        with pytest.raises(MemoryError):
            _native.allocate(size)


def test_a_child_has_memory_of_its_own() -> None:
    """More in tests/native/drive.cpp: one that is forked while other threads allocate."""
    kept = of_bytes(4 * MIB)
    mine = of_bytes(8 * MIB).fill_(1)
    place = kept.data_ptr()
    del kept

    def child() -> bool:
        again = of_bytes(4 * MIB)
        again.numpy().fill(2)  # torch's threads are not there
        mine.numpy().fill(3)
        return again.data_ptr() == place and bool((again.numpy() == 2).all())

    assert in_child(child)
    assert bool((mine == 1).all())


def test_what_is_kept_is_returned_before_memory_runs_out() -> None:
    def child() -> bool:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 200 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        of_bytes(120 * MIB)
        kept = _native.kept_bytes()
        of_bytes(180 * MIB)
        return kept == 120 * MIB

    assert in_child(child)


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it is true in a process forked from this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: this process has threads
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        good = False
        try:
            good = work()
        finally:
            os._exit(0 if good else 1)
    return os.waitpid(child, 0)[1] == 0
