"""Reading past the page cache: aligned by the reader, refused by name, or replaced with a stated reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, stream_weights

from support.streams import descriptors, plans_of, reading_threads, write_many


def allows_direct_io(folder: Path) -> bool:
    path = folder / "probe"
    path.write_bytes(bytes(4096))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_direct_reads_are_aligned_and_right(tmp_path, monkeypatch):
    if not allows_direct_io(tmp_path):
        pytest.skip("this file system refuses O_DIRECT")
    generator = torch.Generator().manual_seed(0)
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    tensors = {f"{i:02d}": torch.randn(37, 41 + i, generator=generator).to(dtypes[i % 3]) for i in range(40)}
    save_file(tensors, tmp_path / "m.safetensors", metadata={"pad": "x" * 5})
    refs = open_checkpoint(tmp_path).tensors
    direct, real = [], os.preadv

    def watch(fd, buffers, at):
        if os.get_blocking(fd) and os.readlink(f"/proc/self/fd/{fd}").endswith(".safetensors"):
            flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:\t")[1].split()[0], 8)
            if flags & os.O_DIRECT:
                address = torch.frombuffer(buffers[0], dtype=torch.uint8).data_ptr()
                direct.append((at % 4096, len(buffers[0]) % 4096, address % 4096))
        return real(fd, buffers, at)

    monkeypatch.setattr(os, "preadv", watch)
    stream = stream_weights(plans_of(refs), StreamOptions(direct_io="on", buffer_bytes=1 << 20))
    for loaded in stream:
        assert torch.equal(loaded.main, tensors[loaded.plan.name])
        assert loaded.main.data_ptr() % loaded.main.itemsize == 0
    assert direct
    assert set(direct) == {(0, 0, 0)}
    assert stream.statistics.reading_notes == []


def refuse(monkeypatch: pytest.MonkeyPatch, *, when: str) -> None:
    """A file system that refuses O_DIRECT when a file is opened, or only when it is read."""
    real_open, real_read, direct = os.open, os.preadv, set()

    def opened(path, flags, *arguments, **keywords):
        if flags & os.O_DIRECT:
            if when == "opened":
                raise OSError(22, "Invalid argument")
            descriptor = real_open(path, flags & ~os.O_DIRECT, *arguments, **keywords)
            direct.add(descriptor)
            return descriptor
        return real_open(path, flags, *arguments, **keywords)

    def read(fd, buffers, at):
        if fd in direct:
            raise OSError(22, "Invalid argument")
        return real_read(fd, buffers, at)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "preadv", read)


@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_refusal_is_an_error_under_on_and_a_note_under_auto(tmp_path, monkeypatch, when):
    refs = write_many(tmp_path)
    refuse(monkeypatch, when=when)
    with pytest.raises(BackendUnavailableError, match=r"part0\.safetensors: direct I/O was asked.*Invalid argument"):
        list(stream_weights(plans_of(refs), StreamOptions(direct_io="on")))
    assert descriptors() == set()
    stream = stream_weights(plans_of(refs), StreamOptions(direct_io="auto"))
    assert [float(loaded.main[0, 0]) for loaded in stream] == [float(ref.name[1:]) for ref in refs]
    assert len(stream.statistics.reading_notes) == 2
    assert all("O_DIRECT refused (Invalid argument)" in note for note in stream.statistics.reading_notes)
    assert descriptors() == set()
    assert reading_threads() == []
