"""How near a scan comes to the speed of reading: reader, peers, computing alone, whole scan, in one run.

``python -m bench.streaming`` makes a checkpoint of Llama-3-8B shapes (7.9 GB), takes half an hour on two cores and
writes ``bench/results/streaming-<machine>.json``. ``--size small`` is a smoke run of a minute and writes nothing unless
``--name`` is given; ``--layers`` sets another size, 72 for 31 GB, where ``--rounds 1 --no-peers --scans cold`` takes as
long.

Rows (medians; rounds of the readers alternate): a plain sequential read, our reader through the page cache and past it,
peers where they are installed, the computing alone with weights in memory, and whole scans in a process of their own.
``cold`` drops the files from the page cache first. The two terms of the bound, reading once and computing once, are
measured in the same run as the scans that are held to it: ``ratio_to_bound = scan / max(read, compute)``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

if not __package__:  # started as a script: the checkout root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.floors import drop_from_cache, read_seconds
from bench.machine import machine_header, machine_slug
from bench.make_checkpoint import WrittenCheckpoint, write_checkpoint
from bench.reading_peers import PEERS, peer_version
from bench.results_file import SCHEMA, write_results
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, load_weight, stream_weights
from spectrum_fast.scanning.plan import plan_scan

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"like": "llama-3-8b", "layers": 18, "scale": 1, "embeddings": False},
    "small": {"like": "llama-3-8b", "layers": 4, "scale": 4, "embeddings": False},
}
Peers = Mapping[str, tuple[str, Callable[[Sequence[Path]], int]]]
SCANS = {"cold": ("cold", "off"), "direct": ("cold", "on"), "warm": ("warm", "off")}
"""What ``--scans`` names: the state of the page cache and the way past it."""

_SCAN = """
import json, sys, time
import spectrum_fast as sf
began = time.perf_counter()
scan = sf.scan(sys.argv[1], direct_io=sys.argv[2], top_percent=None)
seconds = time.perf_counter() - began
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert not scan.failures, scan.failures
print(json.dumps({"seconds": seconds, "peak_bytes": int(status["VmHWM"].split()[0]) * 1024, **dict(scan.run)}))
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Measure reading and scanning a model-shaped checkpoint.")
    parser.add_argument("--size", choices=tuple(SETTINGS), default="full", help="small is a smoke run")
    parser.add_argument("--layers", type=int, help="layers of the checkpoint, 0.44 GB each at full width")
    parser.add_argument("--name", help="name of the result file (default: the machine's; none for a small run)")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written (default: temporary, deleted)")
    parser.add_argument("--rounds", type=int, default=3, help="of every reader")
    parser.add_argument("--no-peers", action="store_true", help="time the plain read and ours only")
    parser.add_argument("--scans", nargs="+", choices=SCANS, default=list(SCANS), help="which whole scans to time")
    options = parser.parse_args(arguments)
    settings = SETTINGS[options.size] | ({"layers": options.layers} if options.layers else {})
    machine = machine_header()
    with tempfile.TemporaryDirectory() as temporary:
        written = write_checkpoint(options.folder or Path(temporary) / "model", **settings)
        rows = measure(written, options.rounds, settings, options.scans, {} if options.no_peers else PEERS)
    for row in rows:
        print(describe(row))
    results = {"schema": SCHEMA, "size": options.size, "machine": machine, "rows": rows}
    name = options.name or (f"streaming-{machine_slug(machine)}" if options.size == "full" else None)
    if name:
        write_results(ROOT / "bench" / "results" / f"{name}.json", results)
        print(f"written: {name}.json; `python -m bench.streaming_table bench/results/{name}.json` puts it in the docs")
    return 0


def measure(
    written: WrittenCheckpoint,
    rounds: int,
    settings: dict[str, Any],
    scans: Sequence[str] = tuple(SCANS),
    peers: Peers = PEERS,
) -> list[dict[str, Any]]:
    """All rows, in the order in which they are measured."""
    plans = plan_scan(open_checkpoint(written.path)).weights
    checkpoint = {
        **{key: settings[key] for key in ("like", "layers", "scale")},
        "checkpoint_bytes": written.total_bytes,
        "matrices": len(plans),
        "files": len(written.files),
    }
    rows = reading_rows(written.files, plans, rounds, peers)
    plain = {row["name"]: row["median_seconds"] for row in rows}
    compute = compute_row(plans)
    rows.append(compute)
    for temperature, direct_io in (SCANS[name] for name in scans):
        if direct_io == "on" and "read[ours, direct]" not in plain:
            continue
        row = scan_row(written, temperature, direct_io)
        read = plain[f"read[plain, {temperature}]"]
        row["info"] |= {
            "read_seconds_alone": read,
            "compute_seconds_alone": compute["median_seconds"],
            "ratio_to_bound": row["median_seconds"] / max(read, compute["median_seconds"]),
        }
        rows.append(row)
    rows.append(reference_row(plans, rows[-1]["median_seconds"]))
    for row in rows:
        row["info"] = {**checkpoint, **row["info"]}
    return rows


def reading_rows(files: Sequence[Path], plans: Sequence[WeightPlan], rounds: int, peers: Peers) -> list[dict[str, Any]]:
    """Plain reads, ours and the peers', in turns."""
    total = sum(path.stat().st_size for path in files)
    wanted = sum(plan.nbytes for plan in plans)
    readers: dict[str, tuple[int, Callable[[], object]]] = {
        "plain": (total, lambda: read_seconds(files, cold=False)),
        "ours": (wanted, lambda: read_with_ours(plans, "off")),
    }
    direct = True
    try:
        read_with_ours(plans[:1], "on")
    except Exception as error:  # noqa: BLE001 - the reason is printed
        direct = False
        print(f"skipped: direct I/O: {error}")
    for name, (distribution, read) in peers.items():
        if peer_version(distribution) is None:
            print(f"skipped: {name}: {distribution} is not installed (pip install 'spectrum-fast[bench]')")
            continue
        try:
            delivered = read(files[:1])
        except Exception as error:  # noqa: BLE001 - likewise
            print(f"skipped: {name}: does not run here: {error!r}")
            continue
        assert delivered > 0, name
        readers[name] = (total, lambda read=read: read(files))
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for temperature in ("cold", "warm"):
            for name, (_, read) in readers.items():
                if temperature == "cold":
                    drop_from_cache(files)
                else:
                    read_seconds(files, cold=False)  # the pages are there, whoever read before
                seconds.setdefault(f"read[{name}, {temperature}]", []).append(timed(read))
            if direct and temperature == "cold":
                drop_from_cache(files)
                seconds.setdefault("read[ours, direct]", []).append(timed(lambda: read_with_ours(plans, "on")))
    rows = []
    for name, found in seconds.items():
        reader = name.removeprefix("read[").split(",")[0]
        nbytes = readers[reader][0]
        distribution = peers[reader][0] if reader in peers else ""
        temperature = "warm" if "warm" in name else "cold"
        plain_rate = total / statistics.median(seconds[f"read[plain, {temperature}]"])
        rate = nbytes / statistics.median(found)
        info: dict[str, Any] = {"gigabytes_per_second": rate / 1e9, "rate_to_plain": rate / plain_rate}
        if distribution:
            info["version"] = peer_version(distribution)
        rows.append(make_row(name, found, info))
    return rows


def read_with_ours(plans: Sequence[WeightPlan], direct_io: str) -> int:
    """Read every weight and do nothing with it."""
    total = 0
    with stream_weights(plans, StreamOptions(direct_io=direct_io)) as stream:
        for loaded in stream:
            total += loaded.plan.nbytes
    return total


def compute_row(plans: Sequence[WeightPlan]) -> dict[str, Any]:
    """Every spectrum of the model from a weight that is in memory; reading it is not counted."""
    rule = find_criterion("spectrum")
    seconds = 0.0
    for plan in plans:
        loaded = load_weight(plan)
        assert isinstance(loaded.main, torch.Tensor)
        weight = decode_weight(plan, loaded.main, loaded.companions)
        began = time.perf_counter()
        compute_spectrum(weight, rule)
        seconds += time.perf_counter() - began
    return make_row("compute", [seconds], {})


def scan_row(written: WrittenCheckpoint, temperature: str, direct_io: str) -> dict[str, Any]:
    """A whole scan in a process of its own: seconds without the interpreter's start, peak memory, where time went."""
    if temperature == "cold":
        drop_from_cache(written.files)
    else:
        read_seconds(written.files, cold=False)
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, str(written.path), direct_io],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"GOMP_SPINCOUNT": "3000", **os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(f"the scan failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    kept = ("peak_bytes", "read_seconds", "wait_seconds", "compute_seconds", "buffer_bytes", "buffer_peak_bytes")
    name = "scan[cold, direct]" if direct_io == "on" else f"scan[{temperature}]"
    info = {key: found[key] for key in kept if key in found}
    info["gigabytes_per_second"] = written.total_bytes / found["seconds"] / 1e9
    return make_row(name, [found["seconds"]], info)


def reference_row(plans: Sequence[WeightPlan], scan_seconds: float) -> dict[str, Any]:
    """The reference's way on a subset: ``svdvals`` in float32, one matrix of each shape, times their number.

    It holds the whole model in float32, which is stated and not done; loading it is not counted in its favour.
    """
    seconds, shapes = 0.0, {}
    for plan in plans:
        shapes.setdefault(plan.main.shape, []).append(plan)
    for same in shapes.values():
        loaded = load_weight(same[0])
        assert isinstance(loaded.main, torch.Tensor)
        weight = loaded.main.float()
        seconds += timed(lambda weight=weight: torch.linalg.svdvals(weight)) * len(same)
    info = {
        "scaled": f"measured on {len(shapes)} of {len(plans)} matrices, one of each shape, multiplied by their number",
        "model_bytes_in_float32": sum(4 * plan.main.element_count for plan in plans),
        "scan_is_faster": seconds / scan_seconds,
    }
    return make_row("reference, scaled from a subset", [seconds], info)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def make_row(name: str, seconds: Sequence[float], info: dict[str, Any]) -> dict[str, Any]:
    """A row of a result file from its rounds."""
    spread = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "name": name,
        "group": "streaming",
        "median_seconds": statistics.median(seconds),
        "iqr_seconds": spread[2] - spread[0],
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "rounds": len(seconds),
        "info": info,
    }


def describe(row: dict[str, Any]) -> str:
    """One line for people."""
    info = row["info"]
    parts = [f"{row['name']:<34} {row['median_seconds']:>9.3f} s"]
    if "gigabytes_per_second" in info:
        parts.append(f"{info['gigabytes_per_second']:6.2f} GB/s")
    for key, unit in (
        ("rate_to_plain", "x plain"),
        ("ratio_to_bound", "x max(read, compute)"),
        ("scan_is_faster", "x"),
    ):
        if key in info:
            parts.append(f"{info[key]:.2f} {unit}")
    if "peak_bytes" in info:
        parts.append(f"peak {info['peak_bytes'] / 1e6:.0f} MB, waited {info['wait_seconds']:.2f} s")
    return "  ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
