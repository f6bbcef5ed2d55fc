"""The header of a remote file: the local one, and nobody waits for a server that does not answer."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.header import read_header
from spectrum_fast.read.storage import RemoteFile

from support.file_server import Fault, FileServer

pytest.importorskip("obstore")


@pytest.fixture
def address(server: FileServer, tmp_path) -> RemoteFile:
    save_file({"w": torch.ones(2, 3), "v": torch.zeros(5)}, tmp_path / "m.safetensors", metadata={"k": "v"})
    server.objects["/models/m.safetensors"] = (tmp_path / "m.safetensors").read_bytes()
    return RemoteFile(f"{server.url}/models/m.safetensors")


def test_it_is_the_local_header_under_the_remote_address(address, tmp_path):
    remote, local = read_header(address), read_header(tmp_path / "m.safetensors")
    assert remote.path is address
    assert remote.tensors == tuple(replace(ref, file=address) for ref in local.tensors)
    assert (remote.metadata, remote.data_begin, remote.digest) == (local.metadata, local.data_begin, local.digest)


def test_a_stop_signal_ends_it_at_once(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "60")
    server.choose = lambda _: Fault("hang")
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="closed"):
        read_header(address, stop)
    assert time.monotonic() - started < 60
