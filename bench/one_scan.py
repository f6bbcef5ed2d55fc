"""One scan with all singular values, and what others compute of the same model each by its own decompositions.

Usage: python -m bench.one_scan measure MODEL [--tuned TUNED] [--layers N]    writes bench/results/one-scan.json
       python -m bench.one_scan table                                         writes the table into docs/criteria.md

``MODEL`` is a folder that transformers loads; ``TUNED`` one of the same modules, trained from it. Times are CPU time of
one process, which a busy machine does not change much; ``--layers`` leaves out what comes after. Peers: PEFT's
``find_kappa_target_modules``, WeightWatcher's ``analyze`` (``pip install weightwatcher``; left out where it is not
there), PEFT's PiSSA initialisation, and ``torch.linalg.svdvals`` of each difference with the edge of its median.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spectrum_fast as sf
from bench.machine import machine_header
from bench.markers import replace_between
from bench.results_file import write_results
from spectrum_fast.choose.selection.export.write import export_selection
from spectrum_fast.choose.selection.model.skeleton import skeleton_of_scan
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.files import write_text_atomic
from spectrum_fast.measure.scoring.criteria import QuantityCriterion, find_criterion
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale, upper_edge
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.use.laser import pissa_targets, write_laser

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "one-scan.json"
PAGE = ROOT / "docs" / "criteria.md"
BEGIN, END = "<!-- one scan: written by `python -m bench.one_scan table` -->", "<!-- end of one scan -->"
NOT_MEASURED = "Not measured yet: `python -m bench.one_scan measure MODEL`, then `python -m bench.one_scan table`."
SHARE = 0.2
RANK = 16


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the CPU time of this process that it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def row(of: str, peer: str, ours_seconds: float, peer_seconds: float, agreement: str) -> dict[str, Any]:
    """A line of the table."""
    seconds = {"ours_seconds": round(ours_seconds, 3), "peer_seconds": round(peer_seconds, 3)}
    return {"of": of, "peer": peer, **seconds, "agreement": agreement}


def patterns(layers: int) -> list[str]:
    """Of the modules of the first so many layers; all where that is 0."""
    return [f"*.layers.{layer}.*" for layer in range(layers)]


def load(folder: str, layers: int) -> torch.nn.Module:
    """The model in float32, cut after so many layers."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if layers:
        model.model.layers = model.model.layers[:layers]
    return model


def linear_layers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the linear layers inside of blocks."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {name: module.weight.detach() for name, module in found.items() if ".layers." in f".{name}"}


def compare_numbers(scan: Scan, name: str, theirs: Mapping[str, float]) -> str:
    """Largest relative difference from another's numbers, and the largest of our stated bounds, relative too."""
    rule = find_criterion(name)
    assert isinstance(rule, QuantityCriterion)
    ours = {key: rule.measure(scan.module(key)) for key in theirs}
    difference = max(abs(value / theirs[key] - 1) for key, (value, _) in ours.items())
    bound = max((error or 0.0) / value for value, error in ours.values())
    return f"largest difference {difference:.1e} of {len(theirs)}; ours within {bound:.1e}"


def kappa(scan: Scan, model: torch.nn.Module, scan_seconds: float) -> dict[str, Any]:
    """PEFT's targets."""
    from peft.helpers import find_kappa_target_modules

    skeleton = skeleton_of_scan(scan)
    options = SelectOptions(100 * SHARE, criterion="kappa")
    export, seconds = timed(lambda: export_selection(scan, "peft", skeleton, options))
    ours = json.loads(export.text)
    theirs, peer_seconds = timed(lambda: find_kappa_target_modules(model, top_p=SHARE))
    mine, yours = set(ours["target_modules"]), set(theirs["target_modules"])
    same = "the same" if mine == yours else f"{len(mine & yours)} in common"
    return row(
        f"kappa: targets of the best {SHARE:.0%}",
        "PEFT `find_kappa_target_modules`",
        scan_seconds + seconds,
        peer_seconds,
        f"{same}, of {len(yours)}",
    )


def weightwatcher(scan: Scan, model: torch.nn.Module, scan_seconds: float) -> list[dict[str, Any]]:
    """Tail exponents and stable ranks; nothing where the package is not there."""
    try:
        from weightwatcher import WeightWatcher  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    found, peer_seconds = timed(lambda: WeightWatcher(model=model).analyze())
    shown = found[found.longname.isin(linear_layers(model))]
    lines = []
    for name, column in (("alpha", "alpha"), ("stable-rank", "stable_rank")):
        theirs = dict(zip(shown.longname, shown[column].astype(float), strict=True))
        agreement, seconds = timed(lambda name=name, theirs=theirs: compare_numbers(scan, name, theirs))
        lines.append(row(name, "WeightWatcher `analyze`", scan_seconds + seconds, peer_seconds, agreement))
    return lines


def difference(folder: str, tuned: str, layers: int) -> dict[str, Any]:
    """Values above the noise edge of what training changed."""
    include = patterns(layers)
    scan, seconds = timed(lambda: sf.scan(tuned, minus=folder, include=include))
    base, trained = linear_layers(load(folder, layers)), linear_layers(load(tuned, layers))

    def by_decomposition() -> dict[str, int]:
        ranks = {}
        for name, weight in trained.items():
            values = torch.linalg.svdvals(weight - base[name]).double().numpy()
            n_min, n_max = sorted(weight.shape)
            edge = upper_edge(noise_scale(float(np.median(values)), n_min, n_max), n_min, n_max)
            ranks[name] = int((values > edge).sum())
        return ranks

    theirs, peer_seconds = timed(by_decomposition)
    ours = {name: scan.module(name) for name in theirs}
    within = sum(
        abs((one.mp_rank or 0) - theirs[name]) <= (one.errors.mp_rank or 0) for name, one in ours.items() if one.errors
    )
    exact = sum(one.mp_rank == theirs[name] for name, one in ours.items())
    ranks = sorted(theirs.values())
    return row(
        "edge of a difference: values above it",
        "`svdvals` of each difference",
        seconds,
        peer_seconds,
        f"{exact} of {len(theirs)} equal, {within} within their bounds (ranks {ranks[0]} to {ranks[-1]})",
    )


def pissa(folder: str, layers: int) -> list[dict[str, Any]]:
    """Factors of every linear layer, and the rest."""
    import peft

    lines = []
    checkpoint = open_checkpoint(folder)
    weights = plan_scan(checkpoint, include=patterns(layers)).weights
    targets, names = pissa_targets(weights, load(folder, 0), RANK)
    with tempfile.TemporaryDirectory() as place:
        records, seconds = timed(lambda: write_laser(checkpoint, targets, Path(place) / "out", adapter=names))
    errors = {names[record.module]: record.relative_error for record in records}
    for method in ("pissa", "pissa_niter_16"):
        model = load(folder, layers)
        before = {name: weight.clone() for name, weight in linear_layers(model).items()}
        said: dict[str, Any] = {"init_lora_weights": method, "target_modules": list(names.values())}
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, **said)
        _, peer_seconds = timed(lambda model=model, config=config: peft.get_peft_model(model, config))
        layers_of = dict(model.named_modules())
        ratios = []
        for name, weight in before.items():
            b, a = (getattr(layers_of[name], f"lora_{kind}")["default"].weight.detach() for kind in "BA")
            theirs = float((weight.double() - b.double() @ a.double()).norm() / weight.double().norm())
            ratios.append(errors[name] / theirs)
        agreement = f"error left over theirs: {min(ratios):.5f} to {max(ratios):.5f}"
        lines.append(row(f"PiSSA, rank {RANK}", f"PEFT `{method}`", seconds, peer_seconds, agreement))
    return lines


def measure(folder: str, tuned: str | None, layers: int) -> dict[str, Any]:
    """All lines, of one model."""
    torch.linalg.svdvals(torch.randn(64, 64))
    sf.spectrum(torch.randn(300, 300))  # whoever is first finds everything cold
    scan, seconds = timed(lambda: sf.scan(folder, spectra=True, include=patterns(layers)))
    model = load(folder, layers)
    rows = [kappa(scan, model, seconds)] if not layers else []
    rows += weightwatcher(scan, model, seconds)
    rows += [difference(folder, tuned, layers)] if tuned else []
    rows += pissa(folder, layers)
    name, taken = Path(folder).name, round(seconds, 3)
    about = {"model": name, "matrices": len(scan.modules), "scan_seconds": taken, "layers": layers}
    return {"schema": 1, "machine": machine_header(), "about": about, "rows": rows}


def format_table(results: Mapping[str, Any]) -> str:
    """Markdown."""
    about, machine = results["about"], results["machine"]
    lines = ["| quantity | peer | peer, s | from the scan, s | faster | agreement |", "|---|---|---|---|---|---|"]
    for one in results["rows"]:
        times = f"{one['peer_seconds']:.1f} | {one['ours_seconds']:.1f}"
        faster = one["peer_seconds"] / one["ours_seconds"]
        lines.append(f"| {one['of']} | {one['peer']} | {times} | {faster:.1f}x | {one['agreement']} |")
    cut = f", its first {about['layers']} layers" if about["layers"] else ""
    cpu = machine["cpu"]
    made_by = "`python -m bench.one_scan measure MODEL --tuned TUNED`"
    words = (
        f"{about['model']}{cut}: one `scan --spectra` of {about['matrices']} matrices took {about['scan_seconds']:.1f} "
        "s. Every line but those on a difference and PiSSA counts all of it, although one scan answers all of them. "
        f"CPU time, {machine['threads']} threads of {cpu['model']} (family {cpu['family']}, model "
        f"{cpu['model_number']}), torch {machine['packages']['torch']}. Source: `bench/results/{RESULTS.name}`, made "
        f"by {made_by}."
    )
    return "\n".join([*lines, "", words])


def write_table() -> None:
    """The page with the table of the committed results."""
    page = PAGE.read_text(encoding="utf-8")
    table = format_table(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.is_file() else NOT_MEASURED
    write_text_atomic(PAGE, replace_between(page, BEGIN, END, table))


def main(words: list[str] | None = None) -> int:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.one_scan", description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("model")
    measuring.add_argument("--tuned")
    measuring.add_argument("--layers", type=int, default=0)
    measuring.add_argument("--out", type=Path, default=RESULTS)
    commands.add_parser("table")
    asked = parser.parse_args(words)
    if asked.command == "table":
        write_table()
        return 0
    results = measure(asked.model, asked.tuned, asked.layers)
    write_results(asked.out, results)
    print(format_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
