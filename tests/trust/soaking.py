"""The process that is soaked: cycles of disturbed scans, what it holds after each, and the verdict on all of them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import shutil
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast import _native

from support.forked import Forked
from trust.disturbances import OPTIONS, Disturbances, Network
from trust.kills import OUTCOMES, Kills, summary

WARM_UP_SHARE = 0.25
"""Share of the cycles after which everything must have settled."""
MOST_GROWTH_MIB = 8.0
"""Memory is flat if its median over the last quarter is at most so far above that of the second quarter ..."""
MOST_SLOPE_MIB = 24.0
"""... and grows by at most so much in an hour, by least squares over the second half."""
SETTLE_SECONDS = 15.0
"""Idle connections and idle threads of the network's runtime end by themselves within this time."""
STEADY = ("descriptors", "threads", "children", "files")
"""Counts that must be the same at the end of every cycle after the warm-up."""
KILLS_A_CYCLE = 4


class Soak:
    """The long-lived process.

    Args:
        folder: an empty one.
        injector: the library that is preloaded.
        forked: runs commands to be killed; None leaves out kills and network, and scans one checkpoint only.
        seed: of where the faults strike.
    """

    def __init__(self, folder: Path, injector: Path, forked: Forked | None, seed: int) -> None:
        models = _write_models(folder / "models")
        self.draw = random.Random(seed)
        self.out = folder / "out"
        self.counts: Counter[str] = Counter()
        self.scans = 0
        self.sources: dict[str, Path | str] = {"mixed": models["mixed"]}
        self.network, self.kills, self.plan = None, None, []
        if forked is not None:
            self.network = Network(folder / "models")
            # The remote one first: what its runtime keeps idle ends by itself while the others are scanned.
            self.sources = {"remote": f"{self.network.url}/sharded", **models}
            (folder / "killed").mkdir()
            self.kills = Kills(forked, folder / "killed")
            self.plan = self.kills.plan(timed=100, seed=seed)
            self.draw.shuffle(self.plan)
        self.disturbances = Disturbances(injector, self.network, self.draw)
        self.expected = {name: self._scan(source) for name, source in self.sources.items()}

    def cycle(self, number: int) -> None:
        """Every disturbance of every checkpoint once, and some kills."""
        for name, source in self.sources.items():
            kinds = self.disturbances.remote if name == "remote" else self.disturbances.local
            for kind, disturb in kinds.items():
                disturb(source, self._fresh())  # type: ignore[arg-type]
                found = self._scan(source, fresh=False)
                assert found == self.expected[name], f"{kind} of {name}: another result than the undisturbed scan's"
                assert [path.name for path in self.out.iterdir()] == ["scan.json"], f"{kind} of {name}: leftovers"
                self.counts[kind] += 1
        for index in range(KILLS_A_CYCLE if self.kills is not None else 0):
            self.kills.strike(self.plan[(KILLS_A_CYCLE * number + index) % len(self.plan)])

    def finish_kills(self) -> None:
        """Strike what is left of the plan, so that every call of every command has had its turn."""
        if self.kills is not None:
            done = sum(self.kills.counts[key] for key in OUTCOMES)
            for strike in self.plan[done:]:
                self.kills.strike(strike)

    def facts(self) -> dict[str, Any]:
        """What was done, all of it with the right result."""
        return {
            "scans_compared": self.scans,
            "different_results": 0,
            "disturbances": dict(sorted(self.counts.items())),
            "kills": None if self.kills is None else summary(self.kills),
        }

    def close(self) -> None:
        """End the server."""
        if self.network is not None:
            self.network.close()

    def _fresh(self) -> Path:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        return self.out / "scan.json"

    def _scan(self, source: Path | str, *, fresh: bool = True) -> bytes:
        out = self._fresh() if fresh else self.out / "scan.json"
        sf.scan(str(source), out=out, **OPTIONS)
        self.scans += 1
        return out.read_bytes()


def measure(folder: Path) -> dict[str, int]:
    """What this process holds now, once the allocator has given back what is free in it."""
    gc.collect()
    _native.release_kept()
    with contextlib.suppress(AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
    me = Path("/proc/self")
    pages = int((me / "statm").read_text().split()[1])
    children: set[str] = set()
    for task in (me / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            children.update((task / "children").read_text().split())
    return {
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir(me / "fd")),
        "threads": len(os.listdir(me / "task")),
        "children": len(children),
        "files": sum(1 for path in folder.rglob("*") if path.is_file() and "killed" not in path.parts),
    }


def measure_settled(folder: Path, rows: list[dict[str, int]]) -> dict[str, int]:
    """The same once what ends by itself has ended: at best, once there is no more than there ever was."""
    deadline = time.monotonic() + (SETTLE_SECONDS if rows else 0)
    while True:
        found = measure(folder)
        if time.monotonic() >= deadline or all(found[key] <= min(row[key] for row in rows) for key in STEADY):
            return found
        time.sleep(0.25)


def judge(rows: list[dict[str, int]], seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Figures of the whole run, and what is wrong with it."""
    problems = []
    settled = rows[int(len(rows) * WARM_UP_SHARE) :]
    figures: dict[str, Any] = {}
    for key in STEADY:
        counts = [row[key] for row in settled]
        figures[key] = {"fewest": min(counts), "most": max(counts)}
        if figures[key]["most"] > figures[key]["fewest"]:
            problems.append(f"{key}: between {min(counts)} and {max(counts)} at the ends of the cycles")
    memory = [row["rss_bytes"] / 2**20 for row in rows]
    quarter = max(1, len(memory) // 4)
    growth = statistics.median(memory[-quarter:]) - statistics.median(memory[quarter : 2 * quarter] or memory)
    half = memory[len(memory) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else 0.0
    hourly = slope * 3600 * len(rows) / seconds
    figures["rss_mib"] = {
        "start": round(memory[0], 1),
        "end": round(memory[-1], 1),
        "most": round(max(memory), 1),
        "growth_from_second_to_last_quarter": round(growth, 2),
        "slope_an_hour_over_second_half": round(hourly, 2),
    }
    if growth > MOST_GROWTH_MIB or (len(rows) >= 20 and hourly > MOST_SLOPE_MIB):
        problems.append(f"memory grew: {figures['rss_mib']}")
    return figures, problems


def _write_models(folder: Path) -> dict[str, Path]:
    """Checkpoints of several kinds: bfloat16 in shards, codes of 8 and 4 bits with their scales, one with failures."""
    write_checkpoint(folder / "sharded", like="llama-3-8b", layers=2, scale=32, shard_gib=0.0004)
    generator = torch.Generator().manual_seed(1)
    codes = folder / "codes"
    codes.mkdir()
    fp8, mxfp4 = {}, {}
    for layer in range(4):
        name = f"model.layers.{layer}.mlp"
        weight = torch.randn(160, 140, generator=generator).to(torch.float8_e4m3fn)
        fp8 |= {f"{name}.up_proj.weight": weight, f"{name}.up_proj.weight_scale_inv": torch.full((2, 2), 0.5)}
        mxfp4 |= {
            f"{name}.experts.down_proj_blocks": torch.randint(0, 256, (3, 40, 3, 16), generator=generator).byte(),
            f"{name}.experts.down_proj_scales": torch.randint(120, 125, (3, 40, 3), generator=generator).byte(),
        }
    save_file(fp8, codes / "model-00001-of-00002.safetensors")
    save_file(mxfp4, codes / "model-00002-of-00002.safetensors")
    mixed = folder / "mixed"
    mixed.mkdir()
    weights = {f"layers.{index}.q_proj.weight": torch.randn(90, 120, generator=generator) for index in range(4)}
    weights["broken.q_proj.weight"] = torch.full((30, 20), float("nan"))
    weights["copy.q_proj.weight"] = weights["layers.0.q_proj.weight"].clone()
    halves = {f"layers.{index}.k_proj.weight": torch.randn(90, 120, generator=generator).half() for index in range(4)}
    save_file(weights, mixed / "model-00001-of-00002.safetensors")
    save_file(halves, mixed / "model-00002-of-00002.safetensors")
    return {path.name: path for path in (folder / "sharded", codes, mixed)}
