"""A whole scan on a GPU: a checkpoint of Llama-3.1-70B's shapes in memory, cold and warm, and where the time went.

Twelve of 80 layers (20 GB of bfloat16) are made on the device and written where memory holds files; each scan is a
process of its own. The first finds no compiled kernel, the second those that the first one left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from bench.gpu.record import Record
from bench.gpu.timing import DEVICE
from bench.gpu.weights import trained_like

LAYERS = 12
LAYER = {
    "self_attn.q_proj": (8192, 8192),
    "self_attn.k_proj": (1024, 8192),
    "self_attn.v_proj": (1024, 8192),
    "self_attn.o_proj": (8192, 8192),
    "mlp.gate_proj": (28672, 8192),
    "mlp.up_proj": (28672, 8192),
    "mlp.down_proj": (8192, 28672),
}
_BYTES = LAYERS * 2 * sum(m * n for m, n in LAYER.values())

_SCAN = """
import json, sys, time
import spectrum_fast as sf
began = time.perf_counter()
scan = sf.scan(sys.argv[1], device=sys.argv[2], top_percent=None)
seconds = time.perf_counter() - began
assert not scan.failures, scan.failures
alone = sum("batch of" not in module.note for module in scan.modules)
print(json.dumps({"seconds": seconds, "matrices": len(scan.modules), "alone": alone, **dict(scan.run)}))
"""


def write_model(folder: Path, layers: int, shrink: int) -> int:
    """One file a layer, by threads; returns the bytes. Weights of a shape are one with its rows moved round."""
    shapes = {shape: [max(side // shrink, 208) for side in shape] for shape in LAYER.values()}
    made = {shape: trained_like(1, *size)[0] for shape, size in shapes.items()}

    def write(layer: int) -> int:
        tensors = {}
        for place, (name, shape) in enumerate(LAYER.items()):
            tensors[f"model.layers.{layer}.{name}.weight"] = made[shape].roll(len(LAYER) * layer + place, 0).cpu()
        save_file(tensors, folder / f"model-{layer:05d}.safetensors")
        return sum(tensor.nbytes for tensor in tensors.values())

    with ThreadPoolExecutor(min(8, layers)) as pool:
        return sum(pool.map(write, range(layers)))


def scan_row(name: str, folder: Path, nbytes: int, cache: Path) -> dict[str, Any]:
    """One scan in a process of its own, its kernels from a cache of its own."""
    launcher = os.environ.get("LAUNCHER")
    script = cache.parent / "scan_once.py"
    script.write_text(_SCAN, encoding="utf-8")
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *(["-m", launcher] if launcher else []), str(script), str(folder), DEVICE],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(cache)},
    )
    if done.returncode:
        raise RuntimeError(f"the scan failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    found |= {"process_seconds": time.perf_counter() - began, "bytes": nbytes}
    found["gigabytes_per_second"] = nbytes / found["seconds"] / 1e9
    return {"name": name, "group": "scan", "median_seconds": found["seconds"], "rounds": 1, "info": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description="A whole scan on a GPU, cold and warm.")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--budget", type=float, default=100.0, help="seconds after which no further scan begins")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.budget
    record = Record(options.out, rehearse=options.rehearse)
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 1.2 * _BYTES
    with tempfile.TemporaryDirectory(dir=memory if fits and not options.rehearse else None) as temporary:
        folder, cache = Path(temporary) / "model", Path(temporary) / "kernels"
        folder.mkdir()
        nbytes = write_model(folder, *((2, 64) if options.rehearse else (LAYERS, 1)))
        print(f"{nbytes / 1e9:.1f} GB written {'in memory' if fits else 'on disk, and in the page cache'}", flush=True)
        for name in ("cold", "warm", "warm again"):
            if time.monotonic() > end:
                record.note("skipped", f"scan[{name}]: budget of {options.budget:.0f} s spent")
                continue
            row = scan_row(f"scan[llama-3.1-70b shapes, {name}]", folder, nbytes, cache)
            record.add(row)
            print(f"{row['name']}: {row['median_seconds']:.2f} s, {row['info']}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
