"""How far a scan is, what its speed hangs on, and how a notebook shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

_READ_BOUND = 0.1
"""From this share of the time on that the scoring side waits for data, reading is what bounds a scan."""


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is; sent once at the beginning and after every module.

    Attributes:
        name: module just finished; empty in the first message.
        done: modules finished, those of an earlier sitting included.
        total: modules to do.
        done_bytes: bytes of those finished.
        total_bytes: bytes to read in all.
        elapsed_seconds: since this sitting began.
        done_work: multiply-adds of those finished, about; 0 where not known.
        total_work: multiply-adds in all.
        resumed: modules taken over from the journal of an earlier sitting.
        resumed_bytes: their bytes.
        resumed_work: their multiply-adds.
        failed: modules without a score among those finished.
        read_seconds: time spent reading so far, over all processes and their reading threads.
        wait_seconds: time that scoring waited for data, over all processes.
        compute_seconds: time spent scoring, over all processes.
        processes: processes at work.
    """

    name: str
    done: int
    total: int
    done_bytes: int
    total_bytes: int
    elapsed_seconds: float
    done_work: float = 0.0
    total_work: float = 0.0
    resumed: int = 0
    resumed_bytes: int = 0
    resumed_work: float = 0.0
    failed: int = 0
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    compute_seconds: float = 0.0
    processes: int = 1

    @property
    def bytes_per_second(self) -> float | None:
        """Rate of this sitting, from bytes read to scores; None before the first module."""
        done_bytes = self.done_bytes - self.resumed_bytes
        return done_bytes / self.elapsed_seconds if done_bytes and self.elapsed_seconds > 0 else None

    @property
    def bound(self) -> str | None:
        """What bounds the speed: ``read`` if scoring waits for data a tenth of its time or more, else ``compute``.

        None before the first module.
        """
        busy_seconds = self.wait_seconds + self.compute_seconds
        if not busy_seconds:
            return None
        return "read" if self.wait_seconds >= _READ_BOUND * busy_seconds else "compute"

    @property
    def left_seconds(self) -> float | None:
        """Time left at the speed of this sitting, by bytes or by work, whichever bounds it; None before there is one.

        >>> ScanProgress("x", 1, 4, 100, 400, 2.0).left_seconds
        6.0
        """
        by_work = self.bound == "compute" and self.total_work > 0
        done, resumed, total = (
            (self.done_work, self.resumed_work, self.total_work)
            if by_work
            else (self.done_bytes, self.resumed_bytes, self.total_bytes)
        )
        if done <= resumed:
            return None
        return (total - done) * self.elapsed_seconds / (done - resumed)


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
