"""What the Triton backends share: where they can run, and how a launch picks its device."""

from __future__ import annotations

import contextlib
import os

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether Triton runs kernels in its interpreter, on CPU tensors (fixed when triton is imported)."""


def kernel_errors() -> tuple[type[Exception], ...]:
    """What a kernel raises that cannot be compiled, loaded or run: those of Triton are no ``RuntimeError``."""
    try:
        from triton.errors import TritonError
    except ImportError:
        return (RuntimeError,)
    return (RuntimeError, TritonError)


def capability_of(tensor: Tensor) -> int:
    """Compute capability of the tensor's device, 80 for an A100, 90 for an H100; 90 where it is no CUDA device."""
    if tensor.device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor


def launch_on(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Context in which a kernel is launched on the tensor's own device; nothing for the interpreter's CPU tensors."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()


def with_unit_stride(batch: Tensor) -> tuple[Tensor, bool, int]:
    """The batch, copied if neither axis is contiguous; whether the sum runs along memory; the stride of the other axis.

    The unit stride is a constant of the kernel, so that tiles load in whole vectors.
    """
    if batch.stride(2) != 1 and batch.stride(1) != 1:
        batch = batch.contiguous()
    along_depth = batch.stride(2) == 1
    return batch, along_depth, batch.stride(1) if along_depth else batch.stride(2)
