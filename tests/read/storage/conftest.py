"""Settings under which tests of broken networks take moments, and a server to break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.file_server import FileServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, short waits."""
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PART_MIB", "0.0625")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_DELAY_SECONDS", "0.02")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server
