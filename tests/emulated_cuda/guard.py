"""The few lines of C++ without which torch's own C++ knows of no CUDA device; compiled once a version of torch."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

_SOURCE = Path(__file__).with_name("guard.cpp")
_BUILD = Path(__file__).resolve().parents[2] / "build" / "emulated_cuda"


def install() -> None:
    """Compile it, if that was not done before, and load it."""
    version = hashlib.sha256(_SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = _BUILD / f"guard-{version}.so"
    if not library.exists():
        _compile(library)
    ctypes.CDLL(str(library))


def _compile(library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    part = library.with_suffix(f".{os.getpid()}")
    includes = [f"-I{path}" for path in include_paths()]
    torch_libraries = Path(torch.__file__).parent / "lib"
    command = [os.environ.get("CXX", "c++"), "-std=c++20", "-O0", "-w", "-fPIC", "-shared", *includes, str(_SOURCE)]
    subprocess.run([*command, f"-L{torch_libraries}", "-lc10", "-o", str(part)], check=True)
    part.rename(library)
