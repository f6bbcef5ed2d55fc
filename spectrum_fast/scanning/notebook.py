"""The progress of a scan in a notebook, where nobody has asked for it in another way."""

from __future__ import annotations

import sys
from collections.abc import Callable

from spectrum_fast.scanning.step import ScanProgress


def notebook_progress() -> Callable[[ScanProgress], None] | None:
    """A bar of tqdm's for notebooks, fed by a scan; None anywhere else, which is silent."""
    interactive = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(interactive).__name__ != "ZMQInteractiveShell":  # the shell of a kernel
        return None
    from tqdm.auto import tqdm

    bar = tqdm(unit="B", unit_scale=True, desc="scan")

    def show(step: ScanProgress) -> None:
        bar.total = step.total_bytes
        bar.set_postfix_str(f"{step.done} of {step.total} modules", refresh=False)
        bar.update(step.done_bytes - bar.n)
        if step.done == step.total:
            bar.close()

    return show
