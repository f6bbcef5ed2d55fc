"""``python -m spectrum_fast``: the same as the command ``spectrum-fast``."""

from __future__ import annotations

import os
import sys


def _forget_current_folder() -> None:
    """Take the current folder off the import path, where ``-m`` has put it.

    It may be an untrusted checkpoint with a file called ``torch.py``. This package's own files are found all the same.
    """
    here = os.getcwd()
    sys.path[:] = [place for place in sys.path if place and place != here]


_forget_current_folder()

from spectrum_fast.use.cli import main  # noqa: E402 - only now is it safe to import

main()
