"""Whole spectra against what others compute on the same GPU: a process a peer, small shapes first, each with a limit.

The reference scanner takes float32 ``svdvals``, WeightWatcher float64 (bench/peers.py); eigenvalues of the Gram matrix
in float64 are the quickest way to all singular values that is as accurate. By torch, and by cupy where it is installed.
PEFT's choice of modules by condition numbers (``KappaTuneSelector``) is given one layer of Mixtral-8x7B's shape, where
PEFT is installed; its author says 982.8 s for all 32 layers on an H200. A peer that is not done with a shape within the
limit is recorded as such, the ratio is then a lower bound, and it is given no larger one.
"""

from __future__ import annotations

import argparse
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.gpu.record import Record
from bench.gpu.timing import DEVICE, time_calls
from bench.gpu.weights import trained_like
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra

SHAPES = [(576, 7168), (1024, 8192), (1536, 7168), (2048, 7168), (32768, 512), (24576, 1536), (4096, 14336)]
SHAPES += [(8192, 8192), (8192, 28672)]
MIXTRAL_LAYER = {(4096, 4096): 2, (1024, 4096): 2, (14336, 4096): 16, (4096, 14336): 8}
PEERS = {
    "torch svdvals float32": "torch.linalg.svdvals(weight.float())",
    "torch eigvalsh float64": "torch.linalg.eigvalsh(gram(weight.double()))",
    "cupy svdvals float32": "cupy.linalg.svd(cupy.asarray(weight.float()), compute_uv=False)",
    "cupy eigvalsh float64": "cupy.linalg.eigvalsh(gram(cupy.asarray(weight.double())))",
    "torch svdvals float64": "torch.linalg.svdvals(weight.double())",
}

_PEER = """
import sys, time, torch
call, device, sides = sys.argv[1], sys.argv[2], list(map(int, sys.argv[3:]))
if "cupy" in call:
    import cupy
def gram(w):
    return w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
for number, (rows, columns) in enumerate([(200, 300), *zip(sides[::2], sides[1::2])]):  # the first loads the library
    weight = (torch.randn(rows, columns, device=device) * 0.02).bfloat16()
    weight.sum().item()
    start = time.perf_counter()
    float(eval(call).sum())
    if number:
        print(time.perf_counter() - start, flush=True)
"""

_KAPPA = """
import sys, time, torch
from peft.helpers import KappaTuneSelector
numbers = list(map(int, sys.argv[2:]))
shapes = [(o, i) for o, i, count in zip(numbers[::3], numbers[1::3], numbers[2::3]) for _ in range(count)]
model = torch.nn.ModuleList(
    torch.nn.Linear(i, o, bias=False, device=sys.argv[1], dtype=torch.bfloat16) for o, i in shapes
)
start = time.perf_counter()
KappaTuneSelector(model, show_progress=False).get_best_targets(top_p=0.2)
print(time.perf_counter() - start, flush=True)
"""

Shapes = dict[tuple[int, int], int]
"""Matrices of each shape that are scored, or decomposed, together."""


@dataclass(frozen=True)
class Peer:
    """A process that prints the seconds of one job after the other.

    Attributes:
        name: for the rows.
        script: of the process.
        arguments: likewise.
        jobs: name and matrices of each, in its order.
        limit: seconds of a job, of the first one with the start of the process.
    """

    name: str
    script: str
    arguments: Sequence[object]
    jobs: Sequence[tuple[str, Shapes]]
    limit: float


def list_peers(limit: float, device: str, *, rehearse: bool) -> list[Peer]:
    """Those that are installed; PEFT gets three times the limit, for 28 matrices."""
    jobs = [(f"{m}x{n}", {(200, 230) if rehearse else (m, n): 1}) for m, n in (SHAPES[:2] if rehearse else SHAPES)]
    sides = [side for _, shapes in jobs for shape in shapes for side in shape]
    calls = {name: call for name, call in PEERS.items() if "cupy" not in name or find_spec("cupy")}
    found = [Peer(name, _PEER, [call, device, *sides], jobs, limit) for name, call in calls.items()]
    if find_spec("peft"):
        shrink = 20 if rehearse else 1
        layer = {(m // shrink, n // shrink): count for (m, n), count in MIXTRAL_LAYER.items()}
        numbers = [number for (m, n), count in layer.items() for number in (m, n, count)]
        job = [("layer of mixtral-8x7b", layer)]
        found.insert(2, Peer("peft KappaTuneSelector", _KAPPA, [device, *numbers], job, 3 * limit))
    return found


def peer_seconds(peer: Peer, end: float) -> Iterator[float | None]:
    """Seconds of one job after the other; None, and no more, for one that was not done in time.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-c", peer.script, *map(str, peer.arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdout is not None
        try:
            for _ in peer.jobs:
                left = max(0.0, min(peer.limit, end - time.monotonic()))
                if not select.select([process.stdout], [], [], left)[0]:
                    yield None
                    return
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"it ended with code {process.wait()}")
                yield float(line)
        finally:
            process.kill()


def our_seconds(shapes: Shapes, rounds: int = 3) -> list[float]:
    """Rounds of the engine of a scan, matrices of one shape together."""
    criterion = find_criterion("spectrum")
    batches = [trained_like(count, m, n) for (m, n), count in shapes.items()]
    with use_backend("auto" if DEVICE == "cuda" else MODEL):
        return time_calls([lambda: [compute_spectra(weights, criterion) for weights in batches]], rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Spectra against peers on a GPU.")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--budget", type=float, default=130.0, help="seconds in all")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of one shape")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    options = parser.parse_args(arguments)
    record = Record(options.out, rehearse=options.rehearse)
    end, failed = time.monotonic() + options.budget, False
    peers = list_peers(options.limit, "cpu" if options.rehearse else DEVICE, rehearse=options.rehearse)
    jobs = {name: shapes for peer in peers for name, shapes in peer.jobs}
    ours = {name: our_seconds(shapes) for name, shapes in jobs.items()}  # first, so that no two share the device
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    for peer in peers:
        if time.monotonic() > end:
            record.note("skipped", f"{peer.name}: the budget is spent")
            continue
        try:
            for (job, _), seconds in zip(peer.jobs, peer_seconds(peer, end), strict=False):  # it may give up
                row = compare(f"spectrum-vs-{peer.name.replace(' ', '-')}[{job}]", ours[job], seconds, peer)
                record.add(row)
                print(f"{row['name']}: {row['median_seconds'] * 1e3:.2f} ms, {row['info']}", flush=True)
        except RuntimeError as error:
            failed = True
            record.note("failures", f"{peer.name}: {error}")
    print(record.text())
    return 1 if failed else 0


def compare(name: str, ours: list[float], seconds: float | None, peer: Peer) -> dict[str, Any]:
    """One row."""
    median, limit = statistics.median(ours), peer.limit if seconds is None else seconds
    info = {"peer": f"{peer.name}, once", "peer_seconds": limit, "peer_was_done": seconds is not None}
    info["ratio_to_peer"] = limit / median
    row = {"name": name, "group": "peer", "median_seconds": median, "min_seconds": min(ours), "max_seconds": max(ours)}
    return {**row, "rounds": len(ours), "info": info}


if __name__ == "__main__":
    raise SystemExit(main())
