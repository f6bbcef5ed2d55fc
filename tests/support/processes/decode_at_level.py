"""The decoder's kernel in this process, and the cases in which it differs from the reference."""

import json
import sys
from pathlib import Path

from spectrum_fast import _native

tests = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(tests), str(tests / "measure" / "ops")]
from test_decode_native import differing  # noqa: E402 - from where it lies

print(json.dumps([_native.decode_kernel(), differing()]))
