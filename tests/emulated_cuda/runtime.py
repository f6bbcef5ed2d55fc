"""The rest of ``torch.cuda``."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import torch

from emulated_cuda import streams, waits
from emulated_cuda.memory import LEDGER
from emulated_cuda.tensors import DEVICE

_TOTAL_BYTES = 80 << 30
_CAPABILITY = (9, 0)
_NAME = "emulated device"


def _properties(device: object = None) -> SimpleNamespace:
    return SimpleNamespace(name=_NAME, total_memory=_TOTAL_BYTES, multi_processor_count=132, major=9, minor=0)


def install() -> None:
    """Into ``torch.cuda``."""
    replacements = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: DEVICE.index,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "get_device_capability": lambda device=None: _CAPABILITY,
        "get_device_name": lambda device=None: _NAME,
        "get_device_properties": _properties,
        "empty_cache": lambda: None,
        "memory_allocated": lambda device=None: LEDGER.alive,
        "max_memory_allocated": lambda device=None: LEDGER.most,
        "reset_peak_memory_stats": lambda device=None: LEDGER.forget_the_most(),
        "mem_get_info": lambda device=None: (_TOTAL_BYTES - LEDGER.alive, _TOTAL_BYTES),
        "set_sync_debug_mode": waits.set_sync_debug_mode,
        "synchronize": streams.synchronize,
        "cudart": streams.Cudart,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "stream": streams.on,
        "set_stream": streams.set_current,
        "current_stream": streams.current,
    }
    for name, replacement in replacements.items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, replacement)
