"""``python -m emulated_cuda MODULE_OR_SCRIPT ARGUMENTS``: run it with the emulated device."""

from __future__ import annotations

import runpy
import sys

import emulated_cuda

emulated_cuda.install()
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
