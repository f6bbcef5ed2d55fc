"""Hand-made safetensors files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write_raw(tmp_path: Path) -> Callable[..., Path]:
    """Write a file from a header (a dict, or the exact bytes) and data; the length field may lie."""

    def write(header: dict | bytes, data: bytes = b"", length: int | None = None, name: str = "m.safetensors") -> Path:
        raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        path = tmp_path / name
        path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
        return path

    return write
