"""``python -m spectrum_fast``: the same as the command ``spectrum-fast``."""

from __future__ import annotations

from spectrum_fast.cli import main

main()
