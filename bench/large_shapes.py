"""All singular values, and PiSSA's factors, of large matrices: ours and other libraries' ways to them, in turns.

Usage: python -m bench.large_shapes [--sides 2048 4096] [--rounds 2]    writes bench/results/large-shapes.json
       python -m bench.large_shapes table                               writes the tables of docs/criteria.md, laser.md

Processor time of one process of one thread (``OMP_NUM_THREADS=1``), which a busy machine does not change much; of a
way that takes more than :data:`ONCE_SECONDS` one round is taken. Values: :data:`bench.peers.PEERS`, beside the score
alone. Factors: what a start of a run by PEFT takes (``init_lora_weights`` of one ``nn.Linear`` in bfloat16), and our
whole pass, from a checkpoint on disk to base and adapter on disk; the error is what the adapter leaves of W.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import spectrum_fast as sf
from bench.machine import machine_header
from bench.markers import replace_between
from bench.peers import PEERS
from bench.results_file import SCHEMA, write_results
from bench.weights import make_tensor
from spectrum_fast.files import write_text_atomic
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.use.laser import LaserTarget, write_laser

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "large-shapes.json"
RANK = 16
METHODS = ("pissa_niter_4", "pissa_niter_16", "pissa")
ONCE_SECONDS = 20.0
NAME = "model.layers.0.self_attn.q_proj"
SCORE, VALUES, PASS = "score alone", "sf.singular_values", "spectrum-fast pissa"
PAGES = {"values": ROOT / "docs" / "criteria.md", "factors": ROOT / "docs" / "laser.md"}
BEGIN, END = "<!-- large shapes: written by `python -m bench.large_shapes table` -->", "<!-- end of large shapes -->"


def take_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median processor time of each way, one round of all after the other; and what each gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    given: dict[str, Any] = {}
    for _ in range(rounds):
        for name, work in ways.items():
            if seconds[name] and seconds[name][0] > ONCE_SECONDS:
                continue
            began = time.process_time()
            given[name] = work()
            seconds[name].append(time.process_time() - began)
    return {name: round(median(taken), 3) for name, taken in seconds.items()}, given


def measure_values(weight: Tensor, rounds: int) -> dict[str, Any]:
    """All singular values of one matrix."""
    ways = {
        VALUES: lambda: sf.singular_values([weight])[0].values,
        SCORE: lambda: sf.spectrum(weight),
        **{name: (lambda peer=peer: peer(weight)) for name, peer in PEERS.items()},
    }
    seconds, given = take_turns(ways, rounds)
    theirs = given["torch svdvals"].double()
    difference = float((torch.from_numpy(given[VALUES]) - theirs).abs().max() / theirs.max())
    fastest = min(seconds[name] for name in PEERS)
    return {
        "kind": "values",
        "shape": list(weight.shape),
        "seconds": seconds,
        "ratio_to_fastest_peer": round(fastest / seconds[VALUES], 2),
        "ratio_to_score": round(seconds[VALUES] / seconds[SCORE], 2),
        "largest_difference": float(f"{difference:.1e}"),
    }


def measure_factors(weight: Tensor, rounds: int) -> dict[str, Any]:
    """PiSSA's split of one matrix."""
    import peft

    def start(method: str) -> float:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        layer.weight.data.copy_(weight)
        said: dict[str, Any] = {"init_lora_weights": method, "target_modules": ["0"]}
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, **said)
        made: Any = peft.get_peft_model(torch.nn.Sequential(layer), config).base_model.model[0]  # pyright: ignore
        return left(made.lora_B["default"].weight, made.lora_A["default"].weight)

    def left(b: Tensor, a: Tensor) -> float:
        return float(
            torch.linalg.vector_norm(weight.float() - b.detach().float() @ a.detach().float(), dtype=torch.float64)
        )

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        folder.mkdir()
        save_file({f"{NAME}.weight": weight}, folder / "model.safetensors")
        checkpoint = open_checkpoint(folder)
        target = LaserTarget(NAME, f"{NAME}.weight", None, RANK)

        def whole_pass() -> float:
            out = tempfile.mkdtemp(dir=place)
            (record,) = write_laser(checkpoint, [target], Path(out) / "split", adapter={NAME: NAME})
            return record.relative_error * float(weight.double().norm())

        ways = {PASS: whole_pass}
        ways |= {f"PEFT {method}": (lambda method=method: start(method)) for method in METHODS}
        seconds, errors = take_turns(ways, rounds)
    return {
        "kind": "factors",
        "shape": list(weight.shape),
        "seconds": seconds,
        "error_over_ours": {name: round(error / errors[PASS], 6) for name, error in errors.items()},
    }


def format_table(results: Mapping[str, Any], kind: str) -> str:
    """Markdown: a column a way; of factors, with what each leaves over what ours leaves."""
    rows = [row for row in results["rows"] if row["kind"] == kind]
    names = list(rows[0]["seconds"])
    lines = [f"| processor seconds | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        left = row.get("error_over_ours", {})
        cells = [f"{row['seconds'][name]:.2f}" + (f" ({left[name]:.4f})" if name in left else "") for name in names]
        lines.append(f"| {row['shape'][0]} x {row['shape'][1]} | {' | '.join(cells)} |")
    machine = results["machine"]
    cpu, packages = machine["cpu"], machine["packages"]
    words = (
        f"{cpu['model']} (family {cpu['family']}, model {cpu['model_number']}), one thread, in turns; torch "
        f"{packages['torch']}, numpy {packages['numpy']}. Source: `bench/results/{RESULTS.name}`, made by "
        "`python -m bench.large_shapes`."
    )
    return "\n".join([*lines, "", words])


def write_tables() -> None:
    """The pages with the tables of the committed results."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for kind, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        write_text_atomic(page, replace_between(text, BEGIN, END, format_table(results, kind)))


def main(words: list[str] | None = None) -> int:
    """Measure, or write the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_shapes", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", nargs="?", choices=("measure", "table"), default="measure")
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(words)
    if asked.command == "table":
        write_tables()
        return 0
    torch.set_num_threads(1)
    for warm in (sf.singular_values, sf.spectrum, *PEERS.values()):
        warm(torch.randn(300, 300))  # whoever is first finds everything cold
    rows: list[dict[str, Any]] = []
    for side in asked.sides:
        weight = make_tensor(f"{NAME}.weight", (side, side))
        for work in (measure_values, measure_factors):
            rows.append(work(weight, asked.rounds))
            print(json.dumps(rows[-1]), flush=True)
    results = {"schema": SCHEMA, "machine": machine_header(), "rank": RANK, "rows": rows}
    write_results(asked.out, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
