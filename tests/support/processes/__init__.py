"""Small programs that tests start in processes of their own."""

from __future__ import annotations

from pathlib import Path


def script(name: str) -> str:
    """Path of one."""
    return str(Path(__file__).with_name(f"{name}.py"))
