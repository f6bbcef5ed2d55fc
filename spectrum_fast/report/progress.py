"""Progress of a scan on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_LINE_SECONDS = 10.0
"""Seconds between two lines where stderr is no terminal."""
_BAR_COLUMNS = 64
"""Width of the bar, the figures and the blanks between them; the rest of the line is for the module's name."""


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
        self._last_step: Step | None = None

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
        step = self._last_step
        if not self._quiet and step is not None and step.done == step.total:
            self._say(f"scanned {step.total} modules, {format_bytes(step.total_bytes)} in {_seconds(step)}")

    def __call__(self, step: Step) -> None:
        """Show one step."""
        self._last_step = step
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                total=step.total_bytes,
                completed=step.done_bytes,
                description=f"{step.done}/{step.total}",
                module=_end_of(step.name, self._console.width - _BAR_COLUMNS),
            )
        elif not self._quiet:
            now = time.monotonic()
            if step.done < step.total and now - self._last_line >= _LINE_SECONDS:
                self._last_line = now
                self._say(format_line(step))

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def format_line(step: Step) -> str:
    """One line for logs: modules, bytes, rate and time left."""
    line = (
        f"scanned {step.done}/{step.total} modules, {format_bytes(step.done_bytes)} of "
        f"{format_bytes(step.total_bytes)} in {_seconds(step)}"
    )
    if step.done_bytes and step.elapsed_seconds > 0:
        rate = step.done_bytes / step.elapsed_seconds
        left_seconds = (step.total_bytes - step.done_bytes) / rate
        line += f", {format_bytes(rate)}/s, about {left_seconds:.0f} s left"
    return line


def format_bytes(count: float) -> str:
    """A size in decimal units, as disks and networks state it.

    >>> format_bytes(999), format_bytes(217_088), format_bytes(141_107_412_992)
    ('999 B', '217 kB', '141 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _seconds(step: Step) -> str:
    return f"{step.elapsed_seconds:.1f} s" if step.elapsed_seconds < 10 else f"{step.elapsed_seconds:.0f} s"


def _end_of(name: str, room: int) -> str:
    """The end of a name, which tells more than its beginning, in ``room`` columns."""
    if len(name) <= room:
        return name
    return "…" + name[len(name) - room + 1 :] if room > 4 else ""


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[module]}", markup=False),
        console=console,
        transient=True,
    )
