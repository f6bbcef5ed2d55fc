"""Go on with the study: ``python -m bench.study [--text german] [--runs N]``; two at once share the work."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.machine import machine_header
from bench.results_file import write_results
from bench.study.conditions import Matrix, matrices_of, names_of
from bench.study.fine_tune import Run, Settings, measure, perform
from bench.study.material import TEXTS, Tokens, docstrings, fetch
from bench.study.plan import next_runs
from bench.study.results import RESULTS, finished_runs
from bench.study.signals import signals_of
from spectrum_fast import load_scan
from spectrum_fast import scan as scan_checkpoint

MATERIAL = Path(__file__).resolve().parents[2] / "build" / "study"


def study(text: str, material: Path, results: Path, settings: Settings, most: int | None) -> int:
    """Do the next ``most`` runs of a text (all, if None), a file each.

    Returns:
        how many were done.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(material / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(material / "model")
    new = Tokens.of((material / f"{text}.txt").read_text(encoding="utf-8"), tokenizer)
    old = Tokens.of(docstrings(), tokenizer)
    matrices = _matrices(material, results / text / "signals.json", base, new, settings)
    if not (results / text / "base.json").is_file():
        _describe_base(results / text / "base.json", base, new, old, settings, material)
    done = 0
    while most is None or done < most:
        with _claimed(text, matrices, material, results) as run:
            if run is None:
                break
            found = perform(base, run, new, old, settings)
            header = {"schema": 1, "kind": "study-run", "machine": machine_header()}
            write_results(results / text / f"{run.name}.json", {**header, **found})
        done += 1
        print(f"{text} {run.name}: {found['loss_new']:.4f}, {found['cpu_seconds']:.0f} s", file=sys.stderr, flush=True)
    return done


@contextmanager
def _claimed(text: str, matrices: list[Matrix], material: Path, results: Path) -> Iterator[Run | None]:
    """The first run that is neither finished nor another process's; None when there is none."""
    claims = material / "claims"
    claims.mkdir(exist_ok=True)
    for run in next_runs(text, matrices, finished_runs(text, results)):
        with (claims / f"{text}-{run.name}").open("w") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not (results / text / f"{run.name}.json").is_file():
                yield run
                return
    yield None


def _matrices(material: Path, signals: Path, base: Any, new: Tokens, settings: Settings) -> list[Matrix]:
    """What competes: scans of the base by both criteria, kept beside it, and the signals of the text."""
    scans = {}
    for criterion in ("spectrum", "mp"):
        path = material / f"{criterion}.scan.json"
        if not path.is_file():
            scan_checkpoint(material / "model", criterion=criterion).save(path)
        scans[criterion] = load_scan(path)
    with (material / "signals.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not signals.is_file():
            found = signals_of(base, names_of(scans["spectrum"]), new.learn, settings)
            header = {"schema": 1, "kind": "study-signals", "machine": machine_header()}
            write_results(signals, {**header, "signals": found})
    return matrices_of(scans, json.loads(signals.read_text(encoding="utf-8"))["signals"])


def _describe_base(path: Path, base: Any, new: Tokens, old: Tokens, settings: Settings, material: Path) -> None:
    weights = (material / "model" / "model.safetensors").read_bytes()
    losses = {
        "measure": measure(base, new, old, settings, chooses_rate=False),
        "choose": measure(base, new, old, settings, chooses_rate=True),
    }
    write_results(
        path,
        {
            "schema": 1,
            "kind": "study-base",
            "machine": machine_header(),
            "model_sha256": hashlib.sha256(weights).hexdigest(),
            "texts": {
                name: {"sha256": text.sha256, "tokens": [len(text.learn), len(text.choose), len(text.measure)]}
                for name, text in (("new", new), ("old", old))
            },
            "losses": losses,
        },
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.study", description=__doc__)
    parser.add_argument("--text", choices=TEXTS, action="append", help="default: both, one after the other")
    parser.add_argument("--runs", type=int, help="stop after so many")
    parser.add_argument("--material", type=Path, default=MATERIAL, help="where model and texts are kept")
    parser.add_argument("--threads", type=int, default=1, help="of a run; results differ in their last digits by it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    fetch(options.material)
    left = options.runs
    for text in options.text or TEXTS:
        done = study(text, options.material, RESULTS, Settings(), left)
        left = None if left is None else left - done
    return 0


if __name__ == "__main__":
    sys.exit(main())
