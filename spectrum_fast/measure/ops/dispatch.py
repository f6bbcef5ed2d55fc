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

BACKENDS = ("auto", "reference", "native", "triton")
"""Names accepted wherever a ``backend`` is taken."""

TRITON_OPERATIONS = frozenset({"band", "decode-nibbles", "extent", "gram", "sturm"})
"""Operations that have a Triton form; the others run as torch operations on a GPU."""


@cache
def native_problem() -> str | None:
    """Why the compiled extension cannot be used here, or None if it can."""
    return _import_problem("spectrum_fast._native")


@cache
def triton_problem() -> str | None:
    """Why Triton cannot be used here, or None if it can."""
    return _import_problem("triton")


def _import_problem(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None


def choose_backend(operation: str, device_type: str, backend: str = "auto") -> str:
    """Name the backend that serves one operation on tensors on ``device_type``.

    Args:
        operation: ``extent``, ``gram``, ``band``, ``sturm``, ``decode`` or
            ``decode-nibbles`` (codes of four bits by table).
        device_type: ``torch.device.type`` of the operands, ``"cpu"`` or ``"cuda"``.
        backend: one of :data:`BACKENDS`.

    Returns:
        ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        UsageError: ``backend`` is not a known name.
        BackendUnavailableError: the named backend has no form of this operation, cannot run on this device or is not
            installed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        if device_type == "cpu":
            return "native" if native_problem() is None else "reference"
        return "triton" if operation in TRITON_OPERATIONS and triton_problem() is None else "reference"
    if backend == "native":
        _require_device(backend, device_type, "cpu")
        _require_import(
            backend,
            "the compiled extension spectrum_fast._native",
            native_problem(),
            "reinstall with `pip install -e .` (needs a C++20 compiler)",
        )
    if backend == "triton":
        if operation not in TRITON_OPERATIONS:
            raise BackendUnavailableError(
                f"backend 'triton' has no form of {operation!r}, only of {', '.join(sorted(TRITON_OPERATIONS))}; "
                "use backend 'auto', which takes torch operations for it"
            )
        _require_device(backend, device_type, "cuda")
        _require_import(backend, "triton", triton_problem(), "install it with `pip install triton`")
    return backend


def _require_device(backend: str, found: str, expected: str) -> None:
    if found != expected:
        raise BackendUnavailableError(
            f"backend {backend!r} runs on {expected} tensors, found a tensor on {found!r}; "
            "move it there or use backend 'reference'"
        )


def _require_import(backend: str, what: str, problem: str | None, remedy: str) -> None:
    if problem is not None:
        raise BackendUnavailableError(
            f"backend {backend!r} needs {what}, which does not load: {problem}; {remedy} or use backend 'reference'"
        )


def backend_module(operation: str, device_type: str, backend: str = "auto") -> ModuleType:
    """Import the module that implements ``operation`` for tensors on this device."""
    return importlib.import_module(
        f"spectrum_fast.measure.ops.{operation}.{choose_backend(operation, device_type, backend)}"
    )


def use_native(operand: torch.Tensor, backend: str) -> bool:
    """Whether decoding this operand is left to the compiled kernels."""
    return choose_backend("decode", operand.device.type, backend) == "native"


def compiled_nibbles(operand: torch.Tensor, backend: str) -> ModuleType | None:
    """The module whose kernels decode four-bit codes where this operand lies; None where torch operations do."""
    choice = choose_backend("decode-nibbles", operand.device.type, backend)
    return None if choice == "reference" else importlib.import_module(f"spectrum_fast.measure.ops.decode.{choice}")


def set_threads(threads: int) -> None:
    """CPU threads of every later operation, torch's and the compiled kernels' alike."""
    torch.set_num_threads(threads)
    if native_problem() is None:
        importlib.import_module("spectrum_fast._native").set_num_threads(threads)
