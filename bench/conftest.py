"""Options and fixtures of the benchmark suites; run them through ``bench/run.py``."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import peers

ROOT = Path(__file__).resolve().parents[1]

PEER_SECONDS = 6.0
"""A peer that has taken longer on matrices of a shape is not run on them again; what it took is its time."""
REST_SECONDS = 0.2
"""After each peer: threads of OpenBLAS spin on and take a core from who comes next (1024 x 4096: 90 for 45 ms)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench")
    group.addoption("--bench-size", choices=("small", "full"), default="small", help="small: a smoke run of a minute")


@pytest.fixture(scope="session")
def bench_size(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--bench-size"))


class TruthCache:
    """float64 scores, kept by content of the matrix under ``.benchmarks/`` (ignored by git)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def score(self, weight: Tensor) -> dict[str, float]:
        """The exact score, from the float64 Gram matrix: about 1e-9 on the matrices of these suites."""
        digest = hashlib.sha256(weight.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:24]
        path = self._folder / f"truth-{digest}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        score = peers.exact_score(weight, "gram")
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(score), encoding="utf-8")
        return score


@pytest.fixture(scope="session")
def truth() -> TruthCache:
    return TruthCache(ROOT / ".benchmarks")


class PeerClock:
    """Times a peer on a matrix, until it has had :data:`PEER_SECONDS` on matrices of this shape or its transpose."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, tuple[int, ...]], list[float]] = {}

    def time(self, peer: Callable[[Tensor], Any], weight: Tensor) -> float:
        """Seconds of ``peer(weight)``; the median of what it took before where it is not run again."""
        taken = self._seconds.setdefault((peer.__qualname__, tuple(sorted(weight.shape))), [])
        if sum(taken) > PEER_SECONDS:
            return statistics.median(taken)
        start = time.perf_counter()
        peer(weight)
        taken.append(time.perf_counter() - start)
        return taken[-1]


@pytest.fixture(scope="session")
def peer_clock() -> PeerClock:
    return PeerClock()


class Interleaved:
    """Rounds of ours with a round of each peer before each, and the ratio of the medians."""

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark

    def run(self, ours: Callable[[], Any], peers: Mapping[str, Callable[[], float]], rounds: int) -> None:
        """Time ``ours`` for ``rounds`` rounds; each of ``peers`` runs before each and returns its seconds.

        Leaves in ``extra_info`` the medians of all ``peers`` by name, strongest first, their best rounds as
        ``peers_best``, and of the first one that was given ``peer``, ``peer_median_seconds`` and ``ratio_to_peer``.
        """
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        first, *_ = peers

        def run_peers() -> None:
            for name, peer in peers.items():
                seconds[name].append(peer())
                time.sleep(REST_SECONDS)

        self._benchmark.pedantic(ours, setup=run_peers, rounds=rounds, warmup_rounds=0)
        extra = self._benchmark.extra_info
        medians = {name: statistics.median(taken) for name, taken in seconds.items()}
        extra["peers"] = dict(sorted(medians.items(), key=lambda one: one[1]))
        extra["peers_best"] = {name: min(seconds[name]) for name in extra["peers"]}
        extra["peer"], extra["peer_median_seconds"] = first, medians[first]
        extra["ratio_to_peer"] = medians[first] / self._benchmark.stats.stats.median


@pytest.fixture
def interleaved(benchmark: Any) -> Interleaved:
    return Interleaved(benchmark)
