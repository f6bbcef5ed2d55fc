"""``spectrum-fast doctor``."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from spectrum_fast.use.cli.consoles import show

HELP = """Show what this machine offers: instruction sets, kernels, GPU, versions.

\b
Example: spectrum-fast doctor"""


def doctor() -> None:
    """Examine and print."""
    from spectrum_fast.doctor import examine

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, finding in examine().items():
        table.add_row(label, Text(finding))
    show(table)
