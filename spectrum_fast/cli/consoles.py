"""Where output goes: data to stdout, words for people to stderr. NO_COLOR and pipes are honoured by rich."""

from __future__ import annotations

from rich.console import Console

err = Console(stderr=True)
out = Console()
WIDE_COLUMNS = 120
"""From this width on, tables show names as well as figures."""
