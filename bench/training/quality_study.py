"""Does it matter which matrices are trained? Pretrain on one text, fine-tune on another, compare the choices.

``python -m bench.training.quality_study --name NAME`` (about ten minutes on one thread) writes
``bench/results/quality-study-NAME.json``; ``python -m bench.training.docs`` writes docs/quality-study.md from it.

A byte-level Llama learns Python source (the standard library's own files), then the English of ``pydoc``'s topics. The
base is one; what the five seeds vary is the order of the fine-tuning data and what ``random`` draws. Everything is
float32, one thread, and the same for all choices: steps, batches, learning rate.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.machine import machine_header
from bench.results_file import write_results
from spectrum_fast import scan as scan_checkpoint
from spectrum_fast.choose.selection.scan_result import Scan

RESULTS = Path(__file__).resolve().parents[1] / "results"
SIZES: dict[str, dict[str, int]] = {
    "full": {"hidden": 96, "layers": 8, "pretrain": 1500, "steps": 60, "batch": 8, "length": 128, "held": 64},
    "small": {"hidden": 32, "layers": 8, "pretrain": 12, "steps": 3, "batch": 2, "length": 32, "held": 4},
}
SEEDS = (0, 1, 2, 3, 4)
PERCENTS = (25, 50)
CHOICES = ("spectrum", "mp", "bottom", "random")
PRETRAIN_RATE = 2e-3
RATE = 1e-3
VOCABULARY = 128
_HELD_OUT = 0.1


def texts() -> dict[str, torch.Tensor]:
    """The two texts as tensors of ASCII bytes; other bytes are left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(path for path in library.glob("*.py") if path.is_file())
    code = b"\n".join(path.read_bytes() for path in sources)
    from pydoc_data.topics import topics

    prose = "\n\n".join(topics[key] for key in sorted(topics)).encode()
    return {"code": _ascii(code), "prose": _ascii(prose)}


def _ascii(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(byte for byte in text if byte < VOCABULARY), dtype=torch.uint8)


def split(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first nine tenths to learn from, the rest to be asked about."""
    border = int(len(text) * (1 - _HELD_OUT))
    return text[:border], text[border:]


def batch(text: torch.Tensor, size: dict[str, int], generator: torch.Generator) -> torch.Tensor:
    """(batch, length) bytes from random places."""
    starts = torch.randint(0, len(text) - size["length"], (size["batch"],), generator=generator)
    return torch.stack([text[start : start + size["length"]] for start in starts]).long()


def held_out_loss(model: Any, text: torch.Tensor, size: dict[str, int]) -> float:
    """Mean loss a byte on fixed places of the held-out text, in nats."""
    count, length = size["held"], size["length"]
    starts = torch.linspace(0, len(text) - length, count).long()
    rows = torch.stack([text[start : start + length] for start in starts]).long()
    model.eval()
    with torch.no_grad():
        losses = [float(model(input_ids=part, labels=part).loss) for part in rows.split(size["batch"])]
    model.train()
    return statistics.fmean(losses)


def train(model: Any, text: torch.Tensor, steps: int, rate: float, size: dict[str, int], seed: int) -> None:
    """AdamW with a linear warm-up of a tenth and a linear decay, on what is trainable."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = batch(text, size, generator)
        model(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)


def make_base(size: dict[str, int], code: torch.Tensor) -> Any:
    """The pretrained model."""
    import transformers

    torch.manual_seed(0)
    hidden = size["hidden"]
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=size["layers"],
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=size["length"],
    )
    model = transformers.LlamaForCausalLM(config)
    train(model, code, size["pretrain"], PRETRAIN_RATE, size, seed=0)
    return model


def scans_of(model: Any) -> dict[str, Scan]:
    """Scans of the base by both criteria, from its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return {criterion: scan_checkpoint(folder, criterion=criterion) for criterion in ("spectrum", "mp")}


def choose(model: Any, scans: dict[str, Scan], choice: str, percent: int, seed: int) -> dict[str, Any]:
    """Freeze the model except for the choice; embeddings and head stay frozen. Gives names and share."""
    order = choice if choice in ("bottom", "random") else "top"
    scan = scans["mp" if choice == "mp" else "spectrum"]
    selection = scan.select(percent, always="none", order=order, seed=seed)
    applied = selection.apply(model)
    return {"modules": list(selection.names), "fraction": applied.trainable_fraction}


def study(size: dict[str, int], seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Pretrain, scan, fine-tune every choice with every seed."""
    torch.set_num_threads(1)
    began = time.process_time()
    both = texts()
    code, held_code = split(both["code"])
    prose, held_prose = split(both["prose"])
    base = make_base(size, code)
    scans = scans_of(base)
    runs = []
    plan = [("full", 100), *((choice, percent) for percent in PERCENTS for choice in CHOICES)]
    for seed in seeds:
        for choice, percent in plan:
            model = copy.deepcopy(base)
            chosen: dict[str, Any] = {"modules": [], "fraction": 1.0}
            if choice != "full":
                chosen = choose(model, scans, choice, percent, seed)
            train(model, prose, size["steps"], RATE, size, seed=1000 + seed)
            runs.append(
                {
                    "choice": choice,
                    "percent": percent,
                    "seed": seed,
                    "trained_fraction": round(chosen["fraction"], 4),
                    "modules": chosen["modules"],
                    "loss_new": held_out_loss(model, held_prose, size),
                    "loss_old": held_out_loss(model, held_code, size),
                }
            )
            print(f"seed {seed} {choice} {percent} %: {runs[-1]['loss_new']:.4f}", file=sys.stderr)
    return {
        "settings": {**size, "rate": RATE, "pretrain_rate": PRETRAIN_RATE, "seeds": list(seeds)},
        "texts": {
            name: {"bytes": len(text), "sha256": hashlib.sha256(text.numpy().tobytes()).hexdigest()}
            for name, text in both.items()
        },
        "parameters": sum(p.numel() for p in base.parameters()),
        "base": {"loss_new": held_out_loss(base, held_prose, size), "loss_old": held_out_loss(base, held_code, size)},
        "cpu_seconds": round(time.process_time() - began, 1),
        "runs": runs,
        "summary": summarise(runs),
    }


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread a choice, and the paired difference from ``random`` at the same share and seed."""
    by_key = {(run["choice"], run["percent"], run["seed"]): run for run in runs}
    rows = []
    for choice, percent in dict.fromkeys((run["choice"], run["percent"]) for run in runs):
        mine = [run for run in runs if (run["choice"], run["percent"]) == (choice, percent)]
        row: dict[str, Any] = {"choice": choice, "percent": percent, "trained_fraction": mine[0]["trained_fraction"]}
        for key in ("loss_new", "loss_old"):
            values = [run[key] for run in mine]
            row[key] = {"mean": statistics.fmean(values), "sd": _sd(values)}
        pairs = [by_key.get(("random", percent, run["seed"])) for run in mine]
        if choice not in ("full", "random") and all(pairs):
            gaps = [run["loss_new"] - pair["loss_new"] for run, pair in zip(mine, pairs, strict=True) if pair]
            row["against_random"] = {
                "mean": statistics.fmean(gaps),
                "sd": _sd(gaps),
                "lower_in": sum(gap < 0 for gap in gaps),
                "of": len(gaps),
            }
        rows.append(row)
    return rows


def _sd(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare what is trained, on a small model.")
    parser.add_argument("--size", choices=list(SIZES), default="full", help="small is a smoke run")
    parser.add_argument("--name", help="of the result file; none prints only")
    options = parser.parse_args(arguments)
    found = study(SIZES[options.size])
    for row in found["summary"]:
        gap = row.get("against_random")
        shown = f", against random {gap['mean']:+.4f} (sd {gap['sd']:.4f})" if gap else ""
        print(
            f"{row['choice']} {row['percent']} %: {row['loss_new']['mean']:.4f} (sd {row['loss_new']['sd']:.4f}){shown}"
        )
    if options.name:
        document = {"schema": 1, "kind": "quality-study", "size": options.size, "machine": machine_header(), **found}
        write_results(RESULTS / f"quality-study-{options.name}.json", document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
