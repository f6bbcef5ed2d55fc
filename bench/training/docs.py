"""docs/quality-study.md, docs/training-results.md and README's sentence on the study, from committed results alone.

``python -m bench.training.docs`` rewrites them; ``tests/bench/test_training_docs.py`` holds them to the results.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.markers import replace_between
from bench.study.page import readme_sentence, results_section
from spectrum_fast.choose.selection.compare import spearman
from spectrum_fast.read.checkpoint.naming import layer_index

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
STUDY = ROOT / "docs" / "quality-study.md"
TRAINING = ROOT / "docs" / "training-results.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- the study: written by `python -m bench.training.docs` -->", "<!-- end of the study -->"

PAPER = {
    ("full", None): (24.92, None, "1h43m16s"),
    ("qlora", None): (21.25, 14.73, "1h18m14s"),
    ("spectrum", 50): (20.50, 17.72, "1h27m17s"),
    ("spectrum", 25): (19.18, 23.05, "1h05m33s"),
    ("spectrum-qlora", 25): (16.95, 31.99, "54m55s"),
}
"""Peak GB a GPU, saving in per cent and time of the paper's table (arXiv 2406.06623): Llama-3-8B, 8 x L40S, ZeRO-3,
batch 1, 4096 tokens, 2 epochs."""

_NAMES = {
    "full": "everything",
    "spectrum": "top by `spectrum`",
    "mp": "top by `mp`",
    "bottom": "bottom by `spectrum`",
    "random": "random",
}


def study_page(documents: list[tuple[str, dict[str, Any]]]) -> str:
    """The page of the quality study, and below it the smaller one that came before."""
    lines = [
        "## The study before: a model of a million parameters",
        "",
        "`python -m bench.training.quality_study`: a byte-level Llama learns Python source, then fine-tunes on English",
        "prose, training only the chosen matrices of each type. Embeddings and head stay frozen; steps, batches and",
        "learning rate are the same for all choices and were not tuned for any. Loss is in nats a byte on held-out",
        "text; lower is better. `against random` is the mean difference at the same seed.",
    ]
    for name, document in documents:
        lines += ["", *_study_section(name, document)]
    return results_section() + "\n" + "\n".join(lines) + "\n"


def _study_section(name: str, document: dict[str, Any]) -> list[str]:
    settings, base = document["settings"], document["base"]
    seeds = len(settings["seeds"])
    lines = [
        f"### {document['parameters']:,} parameters, {settings['layers']} layers, {seeds} seeds",
        "",
        f"Pretraining {settings['pretrain']} steps, fine-tuning {settings['steps']} steps of {settings['batch']} x "
        f"{settings['length']} bytes, AdamW, {settings['rate']:g}. Before it: {base['loss_new']:.4f} on prose, "
        f"{base['loss_old']:.4f} on source. Source: `bench/results/{name}`.",
        "",
        "| trained | share | mean layer | loss on prose (sd) | against random (sd) | better in | on source (sd) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["summary"]:
        label = _NAMES[row["choice"]] + ("" if row["choice"] == "full" else f", {row['percent']} %")
        gap = row.get("against_random")
        shown = f"{gap['mean']:+.4f} ({gap['sd']:.4f})" if gap else "-"
        wins = f"{gap['lower_in']} of {gap['of']}" if gap else "-"
        lines.append(
            f"| {label} | {100 * row['trained_fraction']:.1f} % | {_mean_layer(document, row)} | "
            f"{row['loss_new']['mean']:.4f} "
            f"({row['loss_new']['sd']:.4f}) | {shown} | {wins} | {row['loss_old']['mean']:.4f} "
            f"({row['loss_old']['sd']:.4f}) |"
        )
    return [*lines, "", *_study_reading(document)]


def _mean_layer(document: dict[str, Any], row: dict[str, Any]) -> str:
    """Mean layer (0 is the first) of the modules that a choice trains, over all seeds."""
    layers = [
        layer_index(module)
        for run in document["runs"]
        if (run["choice"], run["percent"]) == (row["choice"], row["percent"])
        for module in run["modules"]
    ]
    known = [layer for layer in layers if layer is not None]
    return f"{statistics.fmean(known):.1f}" if known else "-"


def _study_reading(document: dict[str, Any]) -> list[str]:
    """What the figures say, and how far. Apart means: by more than twice the spread of single random draws."""
    spread = {row["percent"]: row["loss_new"]["sd"] for row in document["summary"] if row["choice"] == "random"}
    draws: dict[str, list[str]] = {"lower": [], "higher": [], "within": []}
    for row in document["summary"]:
        gap = row.get("against_random")
        if gap is None:
            continue
        distance = gap["mean"] / spread[row["percent"]] if spread[row["percent"]] else 0.0
        side = "within" if abs(distance) <= 2 else "lower" if distance < 0 else "higher"
        draws[side].append(f"{_NAMES[row['choice']]} at {row['percent']} % ({distance:+.1f} sd)")
    words = [f"{name}: {', '.join(entries)}" for name, entries in draws.items() if entries]
    return [
        "A choice by score is one choice, whatever the seed, so five seeds are not five tests of it. Its distance from "
        "random, in standard deviations of single random draws, with two as the border: " + "; ".join(words) + ".",
        "",
        f"**The choices differ in depth.** Over all runs of one share, the rank correlation of a run's mean layer with "
        f"its loss on the new text is {_depth_correlations(document)}. The study does not separate score from depth; a "
        "control that draws at random within the same layers would.",
        "",
        "Limits: one pretrained base (seeds vary the order of the data and the random draw), one small model, one pair "
        "of texts, one learning rate, few steps. It says little about models a thousand times larger.",
    ]


def _depth_correlations(document: dict[str, Any]) -> str:
    found = []
    for percent in sorted({run["percent"] for run in document["runs"] if run["modules"]}):
        runs = [run for run in document["runs"] if run["percent"] == percent and run["modules"]]
        depths = [statistics.fmean(layer_index(module) or 0 for module in run["modules"]) for run in runs]
        value = spearman(depths, [run["loss_new"] for run in runs])
        found.append(f"{value:+.2f} at {percent} %" if value is not None else f"undefined at {percent} %")
    return ", ".join(found)


def training_page(documents: list[tuple[str, dict[str, Any]]]) -> str:
    """The page of the methods' memory and time."""
    lines = [
        "# Methods of training side by side",
        "",
        "One model, one data set, one changed word (`spectrum.method`); each method is one `spectrum-fast train` in a",
        "process of its own. The paper's columns are those of arXiv 2406.06623: Llama-3-8B on 8 x L40S under ZeRO-3,",
        "4096 tokens.",
    ]
    if not any(document["on_gpu"] for _, document in documents):
        lines += [
            "",
            "**A GPU has not been measured yet.** The command is `python -m bench.training.methods_table --size gpu "
            "--name GPU`: Llama-3-8B shapes, as many layers as full fine-tuning fits, and the plan checked to 10 %.",
        ]
    for name, document in documents:
        lines += ["", *_training_section(name, document)]
    return "\n".join(lines) + "\n"


def _training_section(name: str, document: dict[str, Any]) -> list[str]:
    where = "GPU" if document["on_gpu"] else "CPU"
    timed, is_random = document["on_gpu"] or "model" in document, "model" not in document
    settings = document["settings"]
    shapes = f"{document['layers']} layers of Llama-3-8B shapes" + (
        "" if settings["scale"] == 1 else f" / {settings['scale']}"
    )
    kind = settings["dtype"] + (" with autocast" if settings.get("autocast") else "")
    lines = [
        f"## {where}: {document['parameters']:,} parameters, {document.get('model', shapes)}",
        "",
        f"{settings['steps']} steps of {settings.get('batch', 1)} x {settings['length']} tokens, {kind}, no ZeRO, "
        f"checkpointing {'on' if settings['checkpointing'] else 'off'}, adapters of rank {settings['rank']}. "
        f"Source: `bench/results/{name}`.",
        "",
        "| method | peak GiB | planned | saving | paper's | s a step | saving | trained | final loss | paper's time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        paper = PAPER.get((row["method"], row["percent"]))
        label = row["method"] if row["percent"] is None else f"{row['method']}-{row['percent']}"
        saving = "-" if row["method"] == "full" else f"{100 * row['memory_saving']:.1f} %"
        quicker = "-" if row["method"] == "full" or not timed else f"{100 * row['time_saving']:.1f} %"
        published = "-" if paper is None or paper[1] is None else f"{paper[1]} %"
        lines.append(
            f"| {label} | {row['peak_bytes'] / 2**30:.2f} | {row['planned_bytes'] / 2**30:.2f} | {saving} | "
            f"{published} | {row['seconds_a_step']:.2f} | {quicker} | {100 * row['trained_fraction']:.2f} % | "
            f"{row['final_loss']:.3f} | {paper[2] if paper else '-'} |"
        )
    if not document["on_gpu"]:
        lines += [
            "",
            f"On a CPU the peak is that of the process less {document['import_bytes'] / 2**30:.2f} GiB, which "
            "importing the same libraries takes, so it holds what allocator and loader leave behind as well; the plan "
            "counts tensors alone. NF4 on a CPU is decoded for every product: its time says nothing about a GPU."
            + ("" if timed else " Times are of a few steps on a machine that others used, too rough for a saving."),
        ]
    lines += [
        "",
        "Where we differ from the paper, and why: it measured an 8B model on eight GPUs under ZeRO-3, where weights",
        "and states are divided by eight and activations are not; here one process keeps gradients and optimizer",
        "states whole, so what freezing saves weighs more. Embeddings and head are trained beside the selection, as",
        "the reference does, which costs more in a small model than in a large one.",
        *(
            ["The weights are random with the spectra of trained ones: memory and time do not ask what they are."]
            * is_random
        ),
        "The loss of a few steps compares no methods. docs/quality-study.md asks what is learnt.",
    ]
    return lines


def read_all(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """Result files by name."""
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob(pattern))]


def pages() -> dict[Path, str]:
    """Every page whose results are there."""
    found = {README: replace_between(README.read_text(encoding="utf-8"), BEGIN, END, readme_sentence())}
    if documents := read_all("quality-study-*.json"):
        found[STUDY] = study_page(documents)
    if documents := read_all("training-*.json"):
        found[TRAINING] = training_page(documents)
    return found


def main() -> int:
    """Rewrite the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
