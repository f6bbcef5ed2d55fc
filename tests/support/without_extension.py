"""The command as it runs where neither the compiled extension nor triton is installed: a script for a process."""

import importlib
import sys

sys.modules["spectrum_fast._native"] = sys.modules["triton"] = None  # type: ignore[assignment]
importlib.import_module("spectrum_fast.use.cli").main()
