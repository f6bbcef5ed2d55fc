"""Progress of a scan on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_LINE_SECONDS = 10.0
"""Seconds between two lines where stderr is no terminal."""


class Step(Protocol):
    """What this module reads of :class:`spectrum_fast.scanning.ScanProgress`."""

    @property
    def name(self) -> str:
        """Module just finished."""
        ...

    @property
    def done(self) -> int:
        """Modules finished."""
        ...

    @property
    def total(self) -> int:
        """Modules to do."""
        ...

    @property
    def done_bytes(self) -> int:
        """Bytes finished."""
        ...

    @property
    def total_bytes(self) -> int:
        """Bytes to do."""
        ...

    @property
    def elapsed_seconds(self) -> float:
        """Time so far."""
        ...


class ScanMeter:
    """Context manager whose instance is called with every step of a scan."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._bar = None if quiet or not console.is_terminal else _make_bar(console)
        self._quiet = quiet
        self._task = None
        self._last_line = time.monotonic()

    def __enter__(self) -> ScanMeter:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("scan", total=None, module="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                total=step.total_bytes,
                completed=step.done_bytes,
                description=f"{step.done}/{step.total}",
                module=step.name,
            )
        elif not self._quiet:
            now = time.monotonic()
            if step.done == step.total or now - self._last_line >= _LINE_SECONDS:
                self._last_line = now
                self._console.print(format_line(step), highlight=False, soft_wrap=True)


def format_line(step: Step) -> str:
    """One line for logs: modules, bytes, rate and time left."""
    rate = step.done_bytes / step.elapsed_seconds if step.elapsed_seconds > 0 else 0.0
    left = (step.total_bytes - step.done_bytes) / rate if rate > 0 else 0.0
    return (
        f"scanned {step.done}/{step.total} modules, {step.done_bytes / 1e9:.2f}/{step.total_bytes / 1e9:.2f} GB, "
        f"{rate / 1e9:.2f} GB/s, {step.elapsed_seconds:.0f} s, {left:.0f} s left"
    )


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[module]}"),
        console=console,
        transient=True,
    )
