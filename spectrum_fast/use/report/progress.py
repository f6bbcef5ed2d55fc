"""Progress of a scan on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Column

from spectrum_fast.read.checkpoint.naming import layer_index
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.words import count_of

_LINE_SECONDS = 10.0
"""Seconds between two lines where stderr is no terminal."""
_WIDE_COLUMNS = 100
"""From this width on there is room for what bounds the speed."""
_BOUNDS = {"read": "reading", "compute": "computing"}


class ScanMeter:
    """Context manager whose instance is called with every step of a scan."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._bar = None if quiet or not console.is_terminal else _make_bar(console)
        self._quiet = quiet
        self._last_line = time.monotonic()
        self._last_step: ScanProgress | None = None

    def __enter__(self) -> ScanMeter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        step = self._last_step
        if step is not None and step.done == step.total:
            earlier = f" ({step.resumed} of them in an earlier sitting)" if step.resumed else ""
            modules = f"{count_of(step.total, 'module')}{earlier}"
            self._say(f"scanned {modules}, {format_bytes(step.total_bytes)} in {_seconds(step)}")

    def __call__(self, step: ScanProgress) -> None:
        """Show one step."""
        if self._quiet:
            return
        self._last_step = step
        if step.resumed and not step.name:
            self._say(
                f"going on where an interrupted scan was: {step.resumed} of {step.total} modules are finished, "
                f"{format_bytes(step.resumed_bytes)} of {format_bytes(step.total_bytes)}"
            )
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                total=step.total_bytes,
                completed=step.done_bytes,
                description=f"{step.done}/{step.total}",
                rate="" if step.bytes_per_second is None else f"{format_bytes(step.bytes_per_second)}/s",
                left="" if step.left_seconds is None else f"{format_left(step.left_seconds)} left",
                bound=_BOUNDS[step.bound] if step.bound else "",
                module=_short_name(step.name),
            )
        elif step.done < step.total and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self._say(format_line(step))

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def format_line(step: ScanProgress) -> str:
    """One line for logs: modules, bytes, rate, time left, and what bounds the rate."""
    line = (
        f"scanned {step.done}/{step.total} modules, {format_bytes(step.done_bytes)} of "
        f"{format_bytes(step.total_bytes)} in {_seconds(step)}"
    )
    if step.bytes_per_second is not None:
        line += f", {format_bytes(step.bytes_per_second)}/s"
    if step.left_seconds is not None:
        line += f", about {format_left(step.left_seconds)} left"
    if step.bound is not None:
        line += f", bound by {_BOUNDS[step.bound]}"
    return line + (f", {step.processes} processes" if step.processes > 1 else "")


def format_left(seconds: float) -> str:
    """Time left, no finer than anybody could know.

    >>> format_left(17.6), format_left(150), format_left(7260)
    ('18 s', '2 min 30 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


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


def _seconds(step: ScanProgress) -> str:
    return f"{step.elapsed_seconds:.1f} s" if step.elapsed_seconds < 10 else f"{step.elapsed_seconds:.0f} s"


def _short_name(name: str) -> str:
    """A module's name from its layer on.

    >>> _short_name("model.layers.12.self_attn.q_proj"), _short_name("language_model.model.embed_tokens")
    ('12.self_attn.q_proj', 'embed_tokens')
    """
    layer = layer_index(name)
    return name.rpartition(".")[2] if layer is None else f"{layer}.{name.partition(f'.{layer}.')[2]}"


def _make_bar(console: Console) -> Progress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(None),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        *([TextColumn("{task.fields[bound]}")] if console.width >= _WIDE_COLUMNS else []),
        # Of one width, or the bar would jump with every name.
        TextColumn("{task.fields[module]}", markup=False, table_column=Column(width=console.width // 4, no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
    )
    bar.add_task("scan", total=None, rate="", left="", bound="", module="")
    return bar
