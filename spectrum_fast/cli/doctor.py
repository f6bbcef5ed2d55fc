"""``spectrum-fast doctor``."""

from __future__ import annotations

from rich import box
from rich.table import Table

from spectrum_fast.cli.consoles import out
from spectrum_fast.doctor import examine

HELP = """Show what this machine offers: instruction sets, kernels, GPU, versions.

Example: spectrum-fast doctor"""


def doctor() -> None:
    """Examine and print."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, finding in examine().items():
        table.add_row(label, finding)
    out.print(table)
