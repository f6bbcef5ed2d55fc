"""The command ``spectrum-fast``: arguments in, data on stdout, words for people on stderr.

Exit codes: 0 done; 1 the scan is written but some tensors failed (named on stderr); 2 bad usage or unreadable input.
"""

from __future__ import annotations

from spectrum_fast.cli.app import main

__all__ = ["main"]
