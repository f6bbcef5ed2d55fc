"""The command ``spectrum-fast``: arguments in, data on stdout, words for people on stderr.

Exit codes: 0 done; 1 the scan is written but some tensors failed (named); 2 bad usage or unreadable input.
"""

from __future__ import annotations

import os

# Waiting OpenMP threads spin for milliseconds by default. torch and the kernels have a pool each, so on a busy machine
# the spinners keep the workers off the cores (measured: band reduction 5 to 40 times slower, 3 times with this; no
# difference on a quiet one). It is read when the OpenMP library is loaded, hence before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from spectrum_fast.use.cli.app import main

__all__ = ["main"]
