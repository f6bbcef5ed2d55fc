"""What a row is, how it is timed, and the rates of the device that floors are made of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

ROTATED_BYTES = 256 << 20
"""Operands of a row together: four times the 60 MB L2 of an H200."""
VECTOR_FLOPS = {torch.float64: 34e12, torch.float32: 67e12}
"""NVIDIA H100 and H200 data sheets (SXM), vector units; not measured here."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class WrongResultError(Exception):
    """A result missed its truth: no time is taken."""


@dataclass(frozen=True)
class Case:
    """One row to be measured.

    Attributes:
        name: of the row.
        group: extent, gram, sturm, band, spectrum.
        check: raises WrongResultError; returns the error found.
        calls: the call on each of the rotating operands.
        flops: of one call.
        bytes: of one call.
        flops_per_second: rate for the floor.
        peer: calls of the peer on the same operands; empty where there is none.
        peer_name: what the peer is.
        rounds: at most so many.
        peer_once: a slow peer is called once, without a warm-up.
        info: more to be kept of the row; may be filled by ``check``.
    """

    name: str
    group: str
    check: Callable[[], float]
    calls: Sequence[Callable[[], object]]
    flops: float
    bytes: float
    flops_per_second: float
    peer: Sequence[Callable[[], object]] = field(default_factory=tuple)
    peer_name: str = ""
    rounds: int = 21
    peer_once: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Build:
    """A row's name, and how to make its operands when its turn has come."""

    name: str
    make: Callable[[], Case]


def measure_rates(n: int) -> dict[str, float]:
    """Ceilings of this device: copy (bytes read and written a second) and dense bf16 products (flops a second)."""
    left, right = torch.randn(2, n, n, device=DEVICE).to(torch.bfloat16).unbind()
    product = statistics.median(time_calls([lambda: torch.mm(left, right)], 7))
    source = torch.randn(n * n * 8, device=DEVICE)
    target = torch.empty_like(source)
    copy = statistics.median(time_calls([lambda: target.copy_(source)], 7))
    return {"copy_bytes_per_second": 2.0 * source.nbytes / copy, "bf16_flops_per_second": 2.0 * n**3 / product}


def time_calls(calls: Sequence[Callable[[], object]], rounds: int, *, warm_up: bool = True) -> list[float]:
    """Seconds of each round, after one of every call that is not counted; calls take turns."""
    for call in calls if warm_up else ():
        call()
    if DEVICE != "cuda":
        seconds = []
        for index in range(rounds):
            start = time.perf_counter()
            calls[index % len(calls)]()
            seconds.append(time.perf_counter() - start)
        return seconds
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    torch.cuda.synchronize()
    for index, (start, stop) in enumerate(events):
        start.record()
        calls[index % len(calls)]()
        stop.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(stop) / 1e3 for start, stop in events]


def measure(case: Case, rates: dict[str, float], rounds: int) -> dict[str, Any]:
    """Check, then time, one row."""
    error = case.check()
    rounds = min(rounds, case.rounds)
    seconds = time_calls(case.calls, rounds)
    quartiles = statistics.quantiles(seconds, n=4)
    median = statistics.median(seconds)
    floor = max(case.bytes / rates["copy_bytes_per_second"], case.flops / case.flops_per_second)
    info: dict[str, Any] = {
        "error": error,
        "bytes": case.bytes,
        "flops": case.flops,
        "flops_per_second": case.flops / median,
        "floor_seconds": floor,
        "ratio_to_floor": median / floor,
        **case.info,
    }
    if case.peer:
        peer = statistics.median(time_calls(case.peer, 1 if case.peer_once else rounds, warm_up=not case.peer_once))
        info |= {"peer": case.peer_name, "peer_seconds": peer, "ratio_to_peer": peer / median}
    return {
        "name": case.name,
        "group": case.group,
        "median_seconds": median,
        "iqr_seconds": quartiles[2] - quartiles[0],
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "rounds": rounds,
        "info": info,
    }
