"""What this machine offers: instruction sets, kernels, devices and versions."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys

import torch

from spectrum_fast.measure.ops.dispatch import GET_EXTENSION, choose_backend, native_problem
from spectrum_fast.system import usable_cores
from spectrum_fast.version import __version__

_PACKAGES = {
    "torch": "",
    "numpy": "",
    "safetensors": "",
    "huggingface_hub": "",
    "triton": "extra 'gpu'",
    "transformers": "extra 'train'",
    "peft": "extra 'train'",
    "deepspeed": "extra 'train'",
}
"""Package -> the extra of this project that brings it; empty for what a scan needs."""


def examine() -> dict[str, str]:
    """Facts about this machine and installation, in the order in which a person wants them.

    Returns:
        Label -> finding, all text; nothing in it names the user or the host.
    """
    found = {
        "spectrum_fast": __version__,
        "python": f"{sys.version.split()[0]} on {platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": f"{usable_cores()} of {os.cpu_count()} usable ({torch.get_num_threads()} threads in use)",
    }
    problem = native_problem()
    if problem is not None:
        found["native kernels"] = f"not available: {problem}; {GET_EXTENSION}"
    else:
        native = importlib.import_module("spectrum_fast._native")
        features = [name for name, present in native.cpu_features().items() if present]
        found["instruction sets"] = ", ".join(features) or "portable"
        for dtype in ("bfloat16", "float16", "float32", "float64"):
            found[f"Gram kernel, {dtype}"] = native.gram_kernel(dtype)
        found["band kernel"] = native.band_kernel()
        found["Sturm kernel"] = native.sturm_kernel()
    found["backend on cpu"] = choose_backend("gram", "cpu")
    found["GPU"] = _gpu()
    for package, extra in _PACKAGES.items():
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = f"not installed ({extra})" if extra else "not installed"
    return found


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none usable (torch sees no CUDA device)"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    kernels = choose_backend("gram", "cuda")
    return f"{', '.join(names)}; {kernels} kernels, with --device cuda (not measured yet, so auto stays on the CPU)"


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
