"""Whole spectra against what others compute on the same GPU, small shapes first, each in a process with a limit.

The reference scanner takes float32 ``svdvals``, WeightWatcher float64 (bench/peers.py); eigenvalues of the Gram matrix
in float64 are the quickest way to all singular values that is as accurate. By torch, and by cupy where it is installed.
PEFT's choice of modules by condition numbers (``KappaTuneSelector``) is given one layer of Mixtral-8x7B's shape, where
PEFT is installed; its author says 982.8 s for all 32 layers on an H200. A peer that is not done within the limit is
recorded as such, and the ratio is then a lower bound.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
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
rows, columns, call, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if "cupy" in call:
    import cupy
def gram(w):
    return w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
weight = (torch.randn(200, 300, device=device) * 0.02).bfloat16()
float(eval(call).sum())  # the library is loaded
weight = (torch.randn(rows, columns, device=device) * 0.02).bfloat16()
weight.sum().item()
start = time.perf_counter()
float(eval(call).sum())
print(time.perf_counter() - start)
"""

_KAPPA = """
import sys, time, torch
from peft.helpers import KappaTuneSelector
device, shrink = sys.argv[1], int(sys.argv[2])
shapes = [(o // shrink, i // shrink) for o, i, count in zip(*[iter(map(int, sys.argv[3:]))] * 3) for _ in range(count)]
model = torch.nn.ModuleList(torch.nn.Linear(i, o, bias=False, device=device, dtype=torch.bfloat16) for o, i in shapes)
start = time.perf_counter()
KappaTuneSelector(model, show_progress=False).get_best_targets(top_p=0.2)
print(time.perf_counter() - start)
"""


def peer_seconds(script: str, arguments: Sequence[object], limit: float) -> float | None:
    """Seconds that a script says it took, in a process of its own; None if it is not done within the limit.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-c", script, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2][-300:])
    return float(done.stdout.split()[-1])


def our_seconds(shapes: dict[tuple[int, int], int], rounds: int = 3) -> list[float]:
    """Rounds of the engine of a scan, matrices of one shape together."""
    criterion = find_criterion("spectrum")
    batches = [trained_like(count, m, n) for (m, n), count in shapes.items()]
    with use_backend("auto" if DEVICE == "cuda" else MODEL):
        return time_calls([lambda: [compute_spectra(weights, criterion) for weights in batches]], rounds)


def compare(name: str, ours: list[float], peer: str, script: str, arguments: Sequence[object], limit: float) -> Any:
    """One row; ours was timed before, so that both never share the device."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    seconds, median = peer_seconds(script, arguments, limit), statistics.median(ours)
    info = {
        "peer": f"{peer}, once",
        "peer_seconds": seconds if seconds is not None else limit,
        "peer_was_done": seconds is not None,
        "ratio_to_peer": (seconds if seconds is not None else limit) / median,
    }
    row = {"name": name, "group": "peer", "median_seconds": median, "min_seconds": min(ours), "max_seconds": max(ours)}
    return {**row, "rounds": len(ours), "info": info}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Spectra against peers on a GPU.")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--budget", type=float, default=110.0, help="seconds in all")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of one peer, its start included")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    options = parser.parse_args(arguments)
    record = Record(options.out, rehearse=options.rehearse)
    end, failed, slow = time.monotonic() + options.budget, False, set[str]()
    peers = {name: call for name, call in PEERS.items() if "cupy" not in name or find_spec("cupy")}
    where = "cpu" if options.rehearse else DEVICE
    jobs: list[tuple[str, dict[tuple[int, int], int], str, str, list[object]]] = []
    for m, n in SHAPES[:1] if options.rehearse else SHAPES:
        size = (200, 230) if options.rehearse else (m, n)
        jobs += [(f"{m}x{n}", {size: 1}, name, _PEER, [*size, call, where]) for name, call in peers.items()]
    if find_spec("peft"):
        shrink = 20 if options.rehearse else 1
        layer = {(m // shrink, n // shrink): count for (m, n), count in MIXTRAL_LAYER.items()}
        listed = [where, shrink, *(number for (m, n), count in MIXTRAL_LAYER.items() for number in (m, n, count))]
        place = sum(2 * m * n <= 2 * 2048 * 7168 for m, n in SHAPES) * len(peers)  # before the wide ones
        jobs.insert(min(place, len(jobs)), ("layer of mixtral-8x7b", layer, "peft KappaTuneSelector", _KAPPA, listed))
    ours: dict[str, list[float]] = {}
    for shape, sizes, peer, script, given in jobs:
        name = f"spectrum-vs-{peer.replace(' ', '-')}[{shape}]"
        left = end - time.monotonic()
        if left < 0.5 * options.limit or peer in slow:
            record.note(
                "skipped", f"{name}: {'slower than its limit before' if peer in slow else 'the budget is spent'}"
            )
            continue
        try:
            ours[shape] = ours.get(shape) or our_seconds(sizes)
            row = compare(name, ours[shape], peer, script, given, min(options.limit, left))
        except RuntimeError as error:
            failed = True
            record.note("failures", f"{name}: {str(error)[:300]}")
            continue
        if not row["info"]["peer_was_done"] and "peft" not in peer:
            slow.add(peer)
        record.add(row)
        print(f"{name}: {row['median_seconds'] * 1e3:.2f} ms, {row['info']}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
