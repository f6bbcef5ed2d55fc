"""The one place where a backend is chosen for an operation.

The backend is one value for all operations: ``auto`` unless :func:`use_backend` says otherwise around a call.
``auto`` takes the fastest backend that can run on the tensor's device. A backend asked for by name either runs or
raises: it is never replaced in silence.

What is checked where. A public function of an operation checks what a tensor says of itself (dtype, shape, strides,
device), on every backend. The numbers inside (NaN among shifts, infinity in a band) it checks where they lie in the
host's memory, see :func:`on_host`: on a device that question would wait for all that is under way, so there it is not
asked, and what comes of such numbers is undefined (the engine looks at the extent of the weights and at the trace of
the band). Backends check nothing; the extension looks at its operands once more at its border.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError, UsageError
from spectrum_fast.measure.ops.triton_support import INTERPRETED

BACKENDS = ("auto", "reference", "native", "triton")
"""Names accepted wherever a ``backend`` is taken."""

MODEL = "model"
"""A further one for tests and error campaigns: the GPU's order of steps and its rounding in torch operations, on any
device. It proves the fixed schedule where there is no GPU. Bands come from ``ops/band/model.py``, extent and Gram
product from the reference; counts, which round alike everywhere, from what ``auto`` takes."""

_MODELLED = {"band": MODEL, "extent": "reference", "gram": "reference"}

TRITON_OPERATIONS = frozenset({"band", "decode", "extent", "gram", "product", "sturm"})
"""Operations that have a Triton form; the others run as torch operations on a GPU."""
GET_EXTENSION = "install a wheel that holds it, or a C++20 compiler and this package again"

_backend: ContextVar[str] = ContextVar("spectrum_fast_backend", default="auto")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Choose the backend of every operation called inside.

    The choice belongs to the thread (or task) that makes it: a thread that is started inside begins with ``auto``,
    unless it is run in a copy of the context (``contextvars.copy_context().run``).

    Args:
        backend: one of :data:`BACKENDS`, or :data:`MODEL`.

    Raises:
        UsageError: ``backend`` is not a known name.
    """
    if backend not in (*BACKENDS, MODEL):
        raise UsageError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    before = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(before)


def follows_device_schedule(device_type: str) -> bool:
    """Whether matrices there are reduced in the GPU's fixed order of steps, which never waits for the device."""
    return choose_backend("band", device_type) in ("triton", MODEL)


def on_host(tensor: Tensor) -> bool:
    """Whether its numbers can be looked at without a wait for a device."""
    return tensor.device.type == "cpu"


@cache
def native_problem() -> str | None:
    """Why the compiled extension cannot be used here, or None if it can."""
    return _import_problem("spectrum_fast._native")


def lacks_extension(device_type: str) -> bool:
    """Whether operations there fall back to torch because the compiled extension does not load, unasked."""
    return device_type == "cpu" and _backend.get() == "auto" and native_problem() is not None


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


def choose_backend(operation: str, device_type: str) -> str:
    """Name the backend that serves one operation on tensors on ``device_type``.

    Args:
        operation: ``extent``, ``gram``, ``band``, ``sturm``, ``product``, ``values`` or ``decode``.
        device_type: ``torch.device.type`` of the operands, ``"cpu"`` or ``"cuda"``.

    Returns:
        ``"native"``, ``"triton"`` or ``"reference"``; ``"model"`` for the band reduction of :data:`MODEL`.

    Raises:
        BackendUnavailableError: the backend that :func:`use_backend` names has no form of this operation, cannot run on
            this device or is not installed.
    """
    backend = _backend.get()
    if backend == MODEL:
        if operation in _MODELLED:
            return _MODELLED[operation]
        backend = "auto"
    if backend == "auto":
        if device_type == "cpu":
            return "native" if native_problem() is None else "reference"
        return "triton" if operation in TRITON_OPERATIONS and triton_problem() is None else "reference"
    if backend == "reference":
        return backend
    if backend == "native":
        place, what = "cpu", "the compiled extension spectrum_fast._native"
        problem, remedy = native_problem(), GET_EXTENSION
    else:
        if operation not in TRITON_OPERATIONS:
            raise BackendUnavailableError(
                f"backend 'triton' has no form of {operation!r}, only of {', '.join(sorted(TRITON_OPERATIONS))}; "
                "use backend 'auto', which takes torch operations for it"
            )
        place, what = device_type if INTERPRETED else "cuda", "triton"
        problem, remedy = triton_problem(), "install spectrum-fast[gpu]"
    if device_type != place:
        raise BackendUnavailableError(
            f"backend {backend!r} runs on {place} tensors, found a tensor on {device_type!r}; "
            "move it there or use backend 'reference'"
        )
    if problem is not None:
        raise BackendUnavailableError(
            f"backend {backend!r} needs {what}, which does not load: {problem}; {remedy} or use backend 'reference'"
        )
    return backend


WEIGHT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Element types of the matrices that operations take."""
WEIGHT_DTYPE_NAMES = ", ".join(str(dtype).removeprefix("torch.") for dtype in WEIGHT_DTYPES)


def check_weights(weights: Tensor, name: str = "weights") -> None:
    """Refuse what is no batch of matrices.

    Raises:
        TypeError: a dtype that is none of :data:`WEIGHT_DTYPES`.
        ValueError: another number of dimensions, or empty matrices.
    """
    if weights.dtype not in WEIGHT_DTYPES:
        raise TypeError(f"{name}: expected float64, float32, float16 or bfloat16, found {weights.dtype}")
    if weights.ndim != 3 or 0 in weights.shape[1:]:
        raise ValueError(f"{name}: expected shape (m, r, c) with r, c >= 1, found {tuple(weights.shape)}")


def backend_module(operation: str, device_type: str) -> ModuleType:
    """Import the module that implements ``operation`` for tensors on this device."""
    return _module(operation, choose_backend(operation, device_type))


@cache
def _module(operation: str, backend: str) -> ModuleType:
    return importlib.import_module(f"spectrum_fast.measure.ops.{operation}.{backend}")


def set_threads(threads: int) -> None:
    """CPU threads of every later operation, torch's and the compiled kernels' alike."""
    torch.set_num_threads(threads)
    if native_problem() is None:
        importlib.import_module("spectrum_fast._native").set_num_threads(threads)


@contextmanager
def thread_count(threads: int | None) -> Iterator[int]:
    """Compute on this many CPU threads, and on as many as before afterwards; gives the number in use."""
    before = torch.get_num_threads()
    if threads is not None:
        set_threads(threads)
    try:
        yield threads or before
    finally:
        if threads is not None:
            set_threads(before)
