"""The ring: its budget holds, its memory is used again, what is released is poisoned before anybody else sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.read.stream.ring import PAGE_BYTES, Ring

from support.streams import plan_of, plans_of, write_many


def test_regions_never_overlap_and_never_pass_the_budget():
    ring = Ring(64 * PAGE_BYTES + 17, poison=False)
    assert ring.capacity_bytes == 64 * PAGE_BYTES
    rng = np.random.default_rng(0)
    held = []
    for _ in range(3000):
        if held and rng.random() < 0.5:
            ring.release(held.pop(int(rng.integers(len(held)))))
            continue
        region = ring.allocate(int(rng.integers(1, 9 * PAGE_BYTES)))
        if region is None:
            continue
        assert region.begin % PAGE_BYTES == region.nbytes % PAGE_BYTES == 0
        assert region.begin + region.nbytes <= ring.capacity_bytes
        for other in held:
            assert region.begin + region.nbytes <= other.begin or other.begin + other.nbytes <= region.begin
        held.append(region)
        assert ring.in_use_bytes == sum(region.nbytes for region in held) <= ring.peak_bytes <= ring.capacity_bytes
    while held:
        ring.release(held.pop())
    assert ring.in_use_bytes == 0
    whole = ring.allocate(ring.capacity_bytes)
    assert whole is not None
    assert ring.allocate(1) is None
    ring.release(whole)
    with pytest.raises(ValueError, match="not in list"):
        ring.release(whole)


def test_the_lowest_place_is_taken_first():
    ring = Ring(16 * PAGE_BYTES)
    first, second = ring.allocate(1), ring.allocate(1)
    assert first is not None
    assert second is not None
    ring.release(first)
    assert ring.allocate(1) == first
    assert second.begin == PAGE_BYTES


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
    ids=str,
)
def test_poison_is_nan_in_every_float_format(dtype):
    ring = Ring(4 * PAGE_BYTES, poison=True)
    region = ring.allocate(64)
    assert region is not None
    assert torch.isnan(ring.bytes[:64].view(dtype).double()).all()  # before anything was read
    ring.bytes[:64].fill_(0)
    ring.release(region)
    assert torch.isnan(ring.bytes[:64].view(dtype).double()).all()


def test_pinning_covers_the_arena_once_and_is_undone():
    calls = []

    def pin(address, nbytes):
        calls.append((address, nbytes))
        return lambda: calls.append(())

    ring = Ring(8 * PAGE_BYTES, pin=pin)
    assert calls == [(ring.bytes.data_ptr(), 8 * PAGE_BYTES)]
    ring.close()
    ring.close()
    assert calls[1:] == [()]


@pytest.mark.parametrize("threads", [0, 3])
def test_a_view_that_is_kept_too_long_shows_poison_and_never_other_data(tmp_path, threads):
    refs = write_many(tmp_path)
    kept = []
    stream = stream_weights(plans_of(refs), StreamOptions(buffer_bytes=1 << 20, threads=threads, poison=True))
    for loaded in stream:
        assert (loaded.main == float(loaded.plan.name[1:])).all()
        assert all(torch.isnan(view).all() for view in kept)
        kept.append(loaded.main)
    assert all(torch.isnan(view).all() for view in kept)  # and they may be looked at when all is over


def test_a_weight_that_was_released_by_name_is_poisoned_at_once(tmp_path):
    refs = write_many(tmp_path)
    with stream_weights(plans_of(refs), StreamOptions(poison=True)) as stream:
        loaded, view = next(stream), None
        view = loaded.main
        loaded.release()
        assert torch.isnan(view).all()
        loaded.release()
        assert (next(stream).main == float(refs[1].name[1:])).all()


def test_bytes_that_a_later_weight_needs_are_not_poisoned(tmp_path):
    refs = write_many(tmp_path)
    with stream_weights([plan_of(refs[0])] * 3, StreamOptions(poison=True)) as stream:
        for loaded in stream:
            assert (loaded.main == float(refs[0].name[1:])).all()


def test_results_do_not_depend_on_the_poison(tmp_path):
    tensors = {f"w{i}": torch.randn(50, 70, generator=torch.Generator().manual_seed(i)) for i in range(20)}
    save_file(tensors, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    sums = [
        [float(loaded.main.sum()) for loaded in stream_weights(plans_of(refs), StreamOptions(poison=poison))]
        for poison in (False, True)
    ]
    assert sums[0] == sums[1]


def test_the_suite_runs_with_poison():
    assert StreamOptions().poison
    assert not StreamOptions(poison=False).poison
