"""``python -m spectrum_fast``: the same as the command ``spectrum-fast``."""

from __future__ import annotations

import os
import sys

# ``-m`` has put the current folder on the import path: it may be an untrusted checkpoint with a file called
# ``torch.py``. This package's own files are found all the same.
sys.path[:] = [place for place in sys.path if place and place != os.getcwd()]

from spectrum_fast.use.cli import main  # noqa: E402 - only now is it safe to import

main()
