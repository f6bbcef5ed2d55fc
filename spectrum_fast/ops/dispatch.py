"""The one place where a backend is chosen for an operation.

``auto`` takes the fastest backend that can run on the tensor's device. A backend asked for by name either runs or
raises: it is never replaced in silence.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

import torch

from spectrum_fast.errors import BackendUnavailableError, UsageError

BACKENDS = ("auto", "reference", "native")
"""Names accepted wherever a ``backend`` is taken."""


@cache
def native_problem() -> str | None:
    """Why the compiled extension cannot be used here, or None if it can."""
    try:
        importlib.import_module("spectrum_fast._native")
    except ImportError as error:
        return str(error)
    return None


def choose_backend(device_type: str, backend: str = "auto") -> str:
    """Name the backend that serves tensors on ``device_type``.

    Args:
        device_type: ``torch.device.type`` of the operands, ``"cpu"`` or ``"cuda"``.
        backend: one of :data:`BACKENDS`.

    Returns:
        ``"native"`` or ``"reference"``.

    Raises:
        UsageError: ``backend`` is not a known name.
        BackendUnavailableError: the named backend cannot run on this device or is not built.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "native" if device_type == "cpu" and native_problem() is None else "reference"
    if backend == "native":
        if device_type != "cpu":
            raise BackendUnavailableError(
                f"backend 'native' runs on CPU tensors, found a tensor on {device_type!r}; "
                "move it to the CPU or use backend 'reference'"
            )
        problem = native_problem()
        if problem is not None:
            raise BackendUnavailableError(
                f"backend 'native' needs the compiled extension spectrum_fast._native, which does not load: {problem}; "
                "reinstall with `pip install -e .` (needs a C++20 compiler) or use backend 'reference'"
            )
    return backend


def backend_module(operation: str, device_type: str, backend: str = "auto") -> ModuleType:
    """Import the module that implements ``operation`` (``gram``, ``band`` or ``sturm``) for this device."""
    return importlib.import_module(f"spectrum_fast.ops.{operation}.{choose_backend(device_type, backend)}")


def set_threads(threads: int) -> None:
    """CPU threads of every later operation, torch's and the compiled kernels' alike."""
    torch.set_num_threads(threads)
    if native_problem() is None:
        importlib.import_module("spectrum_fast._native").set_num_threads(threads)
