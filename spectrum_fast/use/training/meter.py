"""Figures of a running training: tokens a second, peak memory."""

from __future__ import annotations

import resource
import sys
import time

import torch


class TrainingMeter:
    """Tokens, time and memory of this process since :meth:`start`."""

    def __init__(self) -> None:
        self.first_tokens = self._last_tokens = 0.0
        self.started = self._last_time = time.perf_counter()

    def start(self, tokens: float = 0.0) -> None:
        """Begin to count from what the trainer's count is: where it keeps one over a resumption, ``tokens``."""
        self.first_tokens = self._last_tokens = tokens
        self.started = self._last_time = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def rate(self, tokens: float) -> float:
        """Tokens a second since the last call, when ``tokens`` had been seen in all by now."""
        now = time.perf_counter()
        if tokens < self._last_tokens:  # TRL's SFT and DPO trainers begin anew when they are resumed
            self.first_tokens = self._last_tokens = 0.0
        rate = (tokens - self._last_tokens) / max(now - self._last_time, 1e-9)
        self._last_tokens = tokens
        self._last_time = now
        return rate

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started


def peak_rss_bytes() -> int:
    """The most memory that this process has held since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_cuda_bytes() -> int | None:
    """The most memory that tensors held on this process's GPU since the meter started; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
