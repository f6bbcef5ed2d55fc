"""The command on a system that lacks what Linux has: a script for a process, ``elsewhere.py macos|windows ARGUMENTS``.

Third-party libraries are loaded first, as they are on that system; then what it lacks is taken away, and the package
is loaded without its compiled extension, which was never built there.
"""

import mmap
import os
import sys

import huggingface_hub
import numpy
import rich.console
import rich.progress
import safetensors.torch
import torch
import typer

_ = (huggingface_hub, numpy, rich, safetensors, torch, typer)
NOT_ON_MACOS = ("O_DIRECT", "posix_fadvise", "sched_getaffinity", "memfd_create", "SCHED_OTHER")
NOT_ON_WINDOWS = (
    *NOT_ON_MACOS,
    *("O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "preadv", "pread", "sysconf", "fchmod", "fork", "getuid"),
)
NO_MODULES_ON_WINDOWS = ("fcntl", "resource", "pwd", "grp", "termios")


def take_away(system: str) -> None:
    """What this system lacks is gone from ``os`` and from what can be imported."""
    for name in NOT_ON_WINDOWS if system == "windows" else NOT_ON_MACOS:
        if hasattr(os, name):
            delattr(os, name)
    for name in [name for name in vars(mmap) if name.startswith("MADV_")]:
        delattr(mmap, name)
    sys.modules["spectrum_fast._native"] = sys.modules["triton"] = None  # type: ignore[assignment]
    if system == "windows":
        sys.modules.update(dict.fromkeys(NO_MODULES_ON_WINDOWS))  # type: ignore[arg-type]


if __name__ == "__main__":
    take_away(sys.argv.pop(1))
    from spectrum_fast.use.cli import main

    main()
