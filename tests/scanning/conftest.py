"""Checkpoints that are written once for all scan tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of a Llama, short sides from 64 to 256, so that both methods run; one file, 15 matrices."""
    path = tmp_path_factory.mktemp("llama")
    write_checkpoint(path, like="llama-3-8b", layers=2, scale=16)
    return path


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 14 matrices, a second or two of work by SVD on one thread."""
    path = tmp_path_factory.mktemp("deep")
    write_checkpoint(path, like="llama-3-8b", layers=2, scale=8, embeddings=False)
    return path


@pytest.fixture(scope="session")
def uninterrupted(deep: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The scan file of ``deep`` by SVD on one thread, of a scan that nothing disturbed."""
    target = tmp_path_factory.mktemp("uninterrupted") / "scan.json"
    sf.scan(str(deep), method="svd", threads=1).save(target)
    return target.read_bytes()
