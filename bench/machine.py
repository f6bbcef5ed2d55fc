"""What a result was measured on: processor, memory, versions, commit. Never a host name, user or path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "safetensors", "triton", "nanobind", "spectrum-fast", "pytest-benchmark")
"""Distributions whose versions are recorded."""

_ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")


def machine_header() -> dict[str, Any]:
    """Describe the machine and the code for a result file.

    Returns:
        ``cpu`` (model, family, cores, instruction sets as the kernel sees them and as the extension does),
        ``memory_gib``, ``gpu`` (names, or None), ``threads``, ``python``, ``os``, ``packages`` (name -> version),
        ``blas`` (torch's), ``git`` (commit, dirty), ``utc_date``.
    """
    return {
        "cpu": _cpu(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",
        "git": _git_state(),
        "utc_date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def machine_slug(header: dict[str, Any] | None = None) -> str:
    """Short name of a machine for a file name, such as ``cpu-amd-epyc-f26m2-2c``."""
    cpu = (header or machine_header())["cpu"]
    model = re.sub(r"\((r|tm)\)|\bcpu\b|@.*$|processor|\d+-core", " ", cpu["model"].lower())
    model = re.sub(r"[^a-z0-9]+", "-", model).strip("-") or "unknown"
    return f"cpu-{model}-f{cpu['family']}m{cpu['model_number']}-{cpu['cores']}c"


def _cpu() -> dict[str, Any]:
    fields = _first_cpu()
    flags = set(fields.get("flags", "").split())
    return {
        "model": fields.get("model name", platform.processor() or "unknown"),
        "family": fields.get("cpu family", "?"),
        "model_number": fields.get("model", "?"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instruction_sets": [flag for flag in _ISA_FLAGS if flag in flags],
        "native_features": _native_features(),
    }


def _first_cpu() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return {}
    first = info.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _native_features() -> list[str] | None:
    try:
        from spectrum_fast import _native
    except ImportError:
        return None
    return [name for name, present in _native.cpu_features().items() if present]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it: ``$COMMIT`` where only the files were copied, else None."""
    root = Path(__file__).resolve().parents[1]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get("COMMIT")
        return {"commit": commit, "dirty": None} if commit else None
    return {"commit": commit, "dirty": bool(dirty)}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()
