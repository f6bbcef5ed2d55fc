"""``spectrum-fast doctor``."""

from __future__ import annotations

from spectrum_fast.use.cli.consoles import show


def doctor() -> None:
    """Show what this machine offers: instruction sets, kernels, GPU, versions.

    \b
    Example: spectrum-fast doctor
    """
    from spectrum_fast.doctor import examine
    from spectrum_fast.use.report.layout import facts_table

    show(facts_table(examine()))
