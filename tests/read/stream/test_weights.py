"""Weights of several parts: from several files, an expert at a time, and decoded to what was packed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectrum_fast.errors import CheckpointError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.checkpoint import Checkpoint, open_checkpoint
from spectrum_fast.read.formats.config import read_quantisation_config
from spectrum_fast.read.formats.planning import plan_packed, plan_plain
from spectrum_fast.read.formats.recognition import find_packed
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, load_weight, required_buffer_bytes, stream_weights


def plans_of(checkpoint: Checkpoint) -> list[WeightPlan]:
    quantised = find_packed(checkpoint.tensors)
    config = read_quantisation_config(checkpoint.config)
    found: list[WeightPlan] = []
    for ref in checkpoint.tensors:
        if ref.name in quantised.packed:
            found += plan_packed(quantised.packed[ref.name], config)
        elif ref.name not in quantised.companions:
            found += plan_plain(ref)
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A plain matrix, FP8 whose scale lies in another file, and experts fused in bfloat16 and in MXFP4."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 120, (130, 140), generator=generator, dtype=torch.uint8).view(torch.float8_e4m3fn)
    blocks = torch.randint(0, 256, (3, 8, 2, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(120, 130, (3, 8, 2), generator=generator, dtype=torch.uint8)
    first = {
        "a.weight": torch.randn(4, 6, generator=generator),
        "b.weight": codes,
        "experts.up": torch.randn(3, 4, 6, generator=generator).bfloat16(),
        "experts.down_blocks": blocks,
    }
    second = {"b.weight_scale_inv": torch.rand(2, 2, generator=generator), "experts.down_scales": scales}
    save_file(first, tmp_path / "part1.safetensors")
    save_file(second, tmp_path / "part2.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [StreamOptions(threads=0), StreamOptions(), StreamOptions(direct_io="auto")],
    ids=str,
)
def test_parts_are_what_was_stored(mixed, options):
    stored = {}
    for part in (1, 2):
        stored |= load_file(mixed / f"part{part}.safetensors")
    plans = plans_of(open_checkpoint(mixed))
    assert len(plans) == 8
    for plan, loaded in zip(plans, stream_weights(plans, options), strict=True):
        assert loaded.plan is plan
        for ref, tensor in [(plan.main, loaded.main), *((r, loaded.companions[k]) for k, r in plan.companions.items())]:
            whole = stored[ref.name]
            expected = whole if plan.expert is None else whole[plan.expert]
            assert tensor.dtype == expected.dtype
            assert torch.equal(tensor.view(torch.uint8), expected.contiguous().view(torch.uint8))
        assert loaded.read_seconds >= 0
        again = load_weight(plan)
        assert torch.equal(again.main.view(torch.uint8), loaded.main.view(torch.uint8))


def test_decoded_weights(mixed):
    plans = {plan.name: plan for plan in plans_of(open_checkpoint(mixed))}
    loaded = load_weight(plans["b"])
    weight = decode_weight(loaded.plan, loaded.main, loaded.companions)
    row, column = 129, 139
    expected = loaded.main.float()[row, column] * loaded.companions["scale"][1, 1]
    assert weight[row, column] == expected
    loaded = load_weight(plans["experts.2.down"])
    assert decode_weight(loaded.plan, loaded.main, loaded.companions).shape == (8, 64)
    loaded = load_weight(plans["a"])
    assert decode_weight(loaded.plan, loaded.main, loaded.companions) is loaded.main


def test_memory_is_that_of_few_experts(tmp_path):
    save_file({"experts.up": torch.randn(64, 128, 128)}, tmp_path / "m.safetensors")
    stream = stream_weights(plans_of(open_checkpoint(tmp_path)), StreamOptions(buffer_bytes=1 << 20))
    assert sum(1 for _ in stream) == 64
    assert stream.statistics.bytes_from_storage == 64 * 128 * 128 * 4
    assert stream.statistics.buffer_peak_bytes <= 1 << 20


def test_a_packed_weight_larger_than_the_buffer_is_refused_by_name(mixed):
    plans = [plan for plan in plans_of(open_checkpoint(mixed)) if plan.name == "b"]
    assert required_buffer_bytes(plans) == 1 << 20
    large = replace(plans[0], main=replace(plans[0].main, nbytes=3 << 20))
    assert required_buffer_bytes([large]) > 3 << 20
    with pytest.raises(UsageError, match=r"'b\.weight' in .*at least 0\.0029 GiB.*found 0\.0010 GiB; .*--buffer-gib"):
        next(stream_weights([large], StreamOptions(buffer_bytes=1 << 20)))


def test_what_lies_between_a_weight_and_its_scales_has_room_in_the_buffer_too(tmp_path):
    tensors = {
        "experts.down_blocks": torch.zeros(1, 1024, 192, 16, dtype=torch.uint8),
        "experts.down_other": torch.zeros(60_000, dtype=torch.uint8),  # by its name it stands between the two
        "experts.down_scales": torch.full((1, 1024, 192), 127, dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    (packed,) = find_packed(open_checkpoint(tmp_path).tensors).packed.values()
    plans = plan_packed(packed, read_quantisation_config(None))
    options = StreamOptions(buffer_bytes=required_buffer_bytes(plans))
    assert [loaded.plan.name for loaded in stream_weights(plans, options)] == ["experts.0.down"]


def test_a_companion_that_changes_is_an_error(mixed):
    plans = [plan for plan in plans_of(open_checkpoint(mixed)) if plan.name == "b"]
    os.truncate(mixed / "part2.safetensors", 100)
    with pytest.raises(CheckpointError, match=r"'b\.weight_scale_inv' in .*part2"):
        list(stream_weights(plans))


def test_contradictions_name_the_tensor_and_its_layout(mixed):
    plan = next(plan for plan in plans_of(open_checkpoint(mixed)) if plan.name == "b")
    loaded = load_weight(plan)
    with pytest.raises(UnsupportedDtypeError, match=r"stored as FP8.*expected 2 x 2 scales, found 1"):
        decode_weight(plan, loaded.main, {"scale": torch.ones(1)})
