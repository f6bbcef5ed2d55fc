"""What a scan is asked for, checked before anything is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

from spectrum_fast.choose.selection.ranking import check_percent
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.dispatch import choose_backend, set_threads
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import DEFAULT_TOLERANCE, METHODS, PRECISIONS
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.stream import StreamOptions, required_buffer_bytes
from spectrum_fast.read.stream.device import require_cuda
from spectrum_fast.read.stream.options import buffer_bytes_of
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.version import __version__


@dataclass(frozen=True)
class ScanOptions:
    """The options of :func:`spectrum_fast.scan` that decide what is scored and how; described there.

    Raises:
        UsageError: one is out of range.
        BackendUnavailableError: the device was asked for by name and cannot be used.
    """

    criterion: str = "spectrum"
    method: str = "auto"
    precision: str = "auto"
    tolerance: float = DEFAULT_TOLERANCE
    device: str = "auto"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    include_norms: bool = False
    split_fused: bool = False
    threads: int | None = None
    top_percent: float | None = 25.0
    no_store: bool = False
    buffer_gib: float | None = None
    direct_io: str = "off"

    def __post_init__(self) -> None:
        find_criterion(self.criterion)
        _check_choice("method", self.method, METHODS)
        _check_choice("precision", self.precision, PRECISIONS)
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance: expected a number in (0, 1), found {self.tolerance!r}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads: expected at least 1, found {self.threads}")
        if self.top_percent is not None:
            check_percent(self.top_percent)
        object.__setattr__(self, "device", _choose_device(self.device))
        _ = self.stream  # checks the two that concern reading

    @property
    def stream(self) -> StreamOptions:
        """How weights are read; no score depends on it beyond its last bits."""
        return StreamOptions(
            buffer_bytes=buffer_bytes_of(self.buffer_gib), direct_io=self.direct_io, device=self.device
        )

    def require_buffer(self, plan: ScanPlan) -> None:
        """Say before a long scan, not in it, that a weight does not fit the buffer.

        Raises:
            UsageError: a packed weight, which is decoded whole, is larger.
        """
        needed, found = required_buffer_bytes(plan.weights), self.stream.capacity_bytes
        if needed > found:
            largest = max(plan.weights, key=lambda weight: required_buffer_bytes([weight]))
            raise UsageError(
                f"buffer_gib: expected at least {needed / 2**30:.4f}, because {largest.name} is decoded or split "
                f"whole, found {found / 2**30:.4f}; give a larger --buffer-gib"
            )

    @property
    def decided_percent(self) -> float | None:
        """Where cuts are decided in float64 if they must be; None where method or precision were asked for by name."""
        return self.top_percent if self.method == "auto" and self.precision == "auto" else None

    def identity(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """All that decides the scores of this checkpoint, for the journal: another value is another scan.

        The state of each file is part of it, since values can change under an unchanged header.
        """
        return {
            "version": __version__,
            "fingerprint": checkpoint.fingerprint,
            "criterion": self.criterion,
            "method": self.method,
            "precision": self.precision,
            "tolerance": self.tolerance,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "include_norms": self.include_norms,
            "split_fused": self.split_fused,
            "files": {ref.file.name: _describe_stamp(ref.stamp) for ref in checkpoint.tensors if ref.stamp is not None},
        }

    def settings(self, threads: int) -> dict[str, Any]:
        """Under which circumstances scores are found: these change no more than their last bits."""
        return {
            "torch": torch.__version__,
            "device": self.device,
            "backend": choose_backend("gram", self.device.partition(":")[0]),
            "threads": threads,
        }

    def provenance(
        self, checkpoint: Checkpoint, plan: ScanPlan, settings: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """How the scan came about, for its file: what decides the scores, and nothing that passes by, such as times.

        Args:
            checkpoint: what was scanned.
            plan: what was read of it.
            settings: those under which modules were scored; a value that was not the same for all becomes a list.
        """
        return {
            "tool": "spectrum_fast",
            "version": __version__,
            "torch": _one_or_all(settings, "torch"),
            "checkpoint": checkpoint.source,
            "fingerprint": checkpoint.fingerprint,
            "notes": list(checkpoint.notes),
            "method": self.method,
            "precision": self.precision,
            "tolerance": self.tolerance,
            "device": _one_or_all(settings, "device"),
            "backend": _one_or_all(settings, "backend"),
            "threads": _one_or_all(settings, "threads"),
            "bytes_read": plan.total_bytes,
        }


@contextmanager
def thread_count(threads: int | None) -> Iterator[int]:
    """Compute on this many CPU threads, and on as many as before afterwards; gives the number in use."""
    if threads is None:
        yield torch.get_num_threads()
        return
    before = torch.get_num_threads()
    set_threads(threads)
    try:
        yield threads
    finally:
        set_threads(before)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_or_all(settings: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = sorted({entry[key] for entry in settings if key in entry})
    return values[0] if len(values) == 1 else values


def _describe_stamp(stamp: Any) -> str:
    """A file's state in words that two sittings can compare; inode and device differ between machines and are left out.

    A stamp of another kind than a local file's must have a ``repr`` that says what identifies its content.
    """
    if hasattr(stamp, "mtime_ns"):
        seconds, nanoseconds = divmod(stamp.mtime_ns, 10**9)
        moment = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{stamp.size_bytes} bytes, changed {moment}.{nanoseconds:09d}Z"
    return str(stamp)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {option} {value!r}: expected one of {', '.join(choices)}")


def _choose_device(device: str) -> str:
    """``auto`` is the CPU until the GPU kernels have been measured (README)."""
    if device in ("auto", "cpu"):
        return "cpu"
    if re.fullmatch(r"cuda(:[0-9]+)?", device) is None:
        raise UsageError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    require_cuda(device)
    return device
