"""Digests are those of hashlib, whatever the lengths of tensors and whichever of them are hashed together."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import pytest

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.stream import digests, options

LENGTHS = [0, 1, 31, 55, 56, 63, 64, 64, 65, 119, 120, 127, 128, 1000, 1000, 4096, 70_001]


@pytest.mark.parametrize("count", [1, 2, len(LENGTHS)])
@pytest.mark.parametrize("with_kernel", [True, False])
def test_digests_are_those_of_hashlib(with_kernel: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_kernel:
        monkeypatch.setattr(digests, "_extension", lambda: None)
    elif digests._extension() is None:
        pytest.skip("this processor (or SPECTRUM_FAST_ISA) has no instructions that a kernel is written for")
    stored = {}
    for place, length in enumerate(LENGTHS[-count:]):
        ref = TensorRef(f"weight{place}", Path("model.safetensors"), "U8", (length,), 0, length)
        stored[ref] = memoryview(bytearray((7 * i * i + place) % 251 for i in range(length)))
    assert digests.digests_of(stored) == {ref: hashlib.sha256(part).digest() for ref, part in stored.items()}


@pytest.mark.parametrize("instructions", ["sha", "avx512", "avx2"])
def test_any_lengths_go_together(instructions: str) -> None:
    native = digests._extension()
    if native is None or instructions not in native.digest_kernels():
        pytest.skip(f"this processor (or SPECTRUM_FAST_ISA) has no {instructions}")
    assert native.sha256([], instructions=instructions) == []
    for lengths in product(LENGTHS, LENGTHS, [0, 64, 1000]):
        _require_digests(native, lengths, instructions)
    for count in range(1, 40):  # fewer messages than lanes, as many, and lanes that are taken up again
        _require_digests(native, [(37 * i * i + count) % 700 for i in range(count)], instructions)


def _require_digests(native: object, lengths: list[int] | tuple[int, ...], instructions: str) -> None:
    messages = [bytes((3 * place + i) % 256 for i in range(length)) for place, length in enumerate(lengths)]
    found = native.sha256(list(map(memoryview, map(bytearray, messages))), instructions=instructions)  # pyright: ignore[reportAttributeAccessIssue]
    assert found == [hashlib.sha256(message).digest() for message in messages]


def test_more_is_read_ahead_where_lanes_are_filled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = {}
    for lanes in (1, 2, 8, 16):
        monkeypatch.setattr(options, "together", lambda lanes=lanes: lanes)
        windows[lanes] = options.StreamOptions(digests=True).window_bytes(remote=False)
        assert options.StreamOptions().window_bytes(remote=False) == windows[1]
    assert windows[1] == windows[2] < windows[8] == windows[16] == options.AUTO_WINDOW_BYTES


def test_the_best_kernel_of_the_processor_is_taken() -> None:
    native = digests._extension()
    features = {} if native is None else native.cpu_features()
    lanes = {"sha": ("sha", 2), "avx512": ("avx512", 16), "avx2_fma": ("avx2", 8)}
    expected = dict(kernel for feature, kernel in lanes.items() if features.get(feature))
    assert native is None or list(native.digest_kernels().items()) == list(expected.items())
    assert digests.together() == next(iter(expected.values()), 1)


def test_instructions_that_are_not_there_are_refused() -> None:
    native = digests._extension()
    if native is None:
        pytest.skip("this processor (or SPECTRUM_FAST_ISA) has no instructions that a kernel is written for")
    with pytest.raises(RuntimeError, match="no sha512"):
        native.sha256([], instructions="sha512")
