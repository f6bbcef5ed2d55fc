"""Checkpoints that are written once for all scan tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of a Llama, short sides from 64 to 256, so that both methods run; one file, 15 matrices."""
    path = tmp_path_factory.mktemp("llama")
    write_checkpoint(path, like="llama-3-8b", layers=2, scale=16)
    return path
