"""Digests are those of hashlib, whatever the lengths of tensors and whichever of them are hashed together."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import pytest

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.stream import digests

LENGTHS = [0, 1, 31, 55, 56, 63, 64, 64, 65, 119, 120, 127, 128, 1000, 1000, 4096, 70_001]


@pytest.mark.parametrize("with_kernel", [True, False])
def test_digests_are_those_of_hashlib(with_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_kernel:
        monkeypatch.setattr(digests, "_extension", lambda: None)
    elif digests._extension() is None:
        pytest.skip("this processor (or SPECTRUM_FAST_ISA) has no SHA instructions")
    stored = {}
    for place, length in enumerate(LENGTHS):
        ref = TensorRef(f"weight{place}", Path("model.safetensors"), "U8", (length,), 0, length)
        stored[ref] = memoryview(bytearray((7 * i * i + place) % 251 for i in range(length)))
    assert digests.digests_of(stored) == {ref: hashlib.sha256(part).digest() for ref, part in stored.items()}


def test_any_lengths_go_together() -> None:
    native = digests._extension()
    if native is None:
        pytest.skip("this processor (or SPECTRUM_FAST_ISA) has no SHA instructions")
    assert native.sha256([]) == []
    for lengths in product(LENGTHS, LENGTHS, [0, 64, 1000]):
        messages = [bytes((place + i) % 256 for i in range(length)) for place, length in enumerate(lengths)]
        found = native.sha256([memoryview(bytearray(message)) for message in messages])
        assert found == [hashlib.sha256(message).digest() for message in messages]
