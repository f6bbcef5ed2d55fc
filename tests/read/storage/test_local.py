"""Local files behind the storage interface."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage import open_stored_file, read_bytes, read_failure, read_small_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def test_positional_reads(path):
    file = open_stored_file(path)
    try:
        assert file.stamp.size_bytes == 10240
        buffer = bytearray(300)
        assert file.read_into(memoryview(buffer), 256) == 300
        assert bytes(buffer) == path.read_bytes()[256:556]
        assert file.read_into(memoryview(buffer), 10239) == 1
        assert file.read_into(memoryview(buffer), 10240) == 0
        descriptor = file.descriptor
        assert descriptor is not None
        assert os.fstat(descriptor).st_size == 10240
    finally:
        file.close()
        file.close()
    with pytest.raises(OSError, match="Bad file"):
        file.read_into(memoryview(bytearray(1)), 0)


def test_short_reads_are_put_together(path, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:7]], at))
    file = open_stored_file(path)
    try:
        assert read_bytes(file, 1000, 3) == path.read_bytes()[3:1003]
        assert read_bytes(file, 1000, 10000) == path.read_bytes()[10000:]
    finally:
        file.close()


def test_threads_share_a_file(path):
    whole = path.read_bytes()
    file = open_stored_file(path)
    wrong = []

    def read_all(step: int) -> None:
        for at in range(0, len(whole), step):
            if read_bytes(file, step, at) != whole[at : at + step]:
                wrong.append((step, at))

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (13, 101, 257)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    assert wrong == []


def test_stamps_tell_states_apart(path):
    file = open_stored_file(path)
    file.require_unchanged()
    again = open_stored_file(path)
    assert again.stamp == file.stamp
    again.close()
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match="truncated or replaced while being read"):
        file.require_unchanged()
    path.unlink()
    with pytest.raises(CheckpointError, match="truncated or replaced while being read"):
        file.require_unchanged()
    file.close()


def test_small_files_have_a_limit(path):
    assert read_small_file(path, 10240) == path.read_bytes()
    with pytest.raises(CheckpointError, match=r"at most 10239 bytes, found 10240"):
        read_small_file(path, 10239)
    with pytest.raises(CheckpointError, match=r"a directory"):
        read_small_file(path.parent, 10)


def test_failures_in_words(path, monkeypatch):
    def broken(fd, buffers, at):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be read: Input/output error; check the disk"):
        read_small_file(path, 1 << 20)
    assert read_failure(OSError("three attempts failed; try again")) == "three attempts failed; try again"
