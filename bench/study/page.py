"""The results of the study as the page shows them, from the files that are there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.study.conditions import CONDITIONS, CONTROLLED, MATCHED, SEARCH
from bench.study.plan import DRAWS, SEEDS
from bench.study.results import RESULTS, finished_runs

PROTOCOL = Path(__file__).with_name("protocol.md")
DECISION = Path(__file__).with_name("decision.md")
BETTER = 19
"""Of 20 matched draws."""

LONG_ENOUGH = 10
"""Times the spread of its seeds that the gain of ``full`` has to be."""

Runs = Sequence[Mapping[str, Any]]


def results_section() -> str:
    """The protocol, below it what the committed runs say, and what was decided by them."""
    lines = ["## Results", ""]
    for folder in sorted(RESULTS.iterdir()) if RESULTS.is_dir() else []:
        if (folder / "base.json").is_file():
            base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
            lines += text_section(folder.name, base["losses"]["measure"], finished_runs(folder.name))
    if len(lines) == 2:
        lines.append("No run is finished yet.")
    lines += DECISION.read_text(encoding="utf-8").splitlines()
    return PROTOCOL.read_text(encoding="utf-8") + "\n" + "\n".join(lines) + "\n"


def readme_sentence() -> str:
    """What README says of the study: the protocol's words for each score whose matched draws are all there, or none."""
    found = []
    for folder in sorted(RESULTS.iterdir()) if RESULTS.is_dir() else []:
        measured = [run for run in finished_runs(folder.name) if not run["chooses_rate"]]
        for condition in MATCHED:
            below, of = matched_rank(condition, measured) or (0, 0)
            if of >= DRAWS:
                draws = f"{folder.name.capitalize()}: a lower loss than {below} of {of} matched draws"
                found += [f"by `{condition}` was {_verdict(below, of)} ({draws})"]
    if not found:
        return (
            "Whether the matrices of the highest score are better trained than as many drawn at random at the same\n"
            "depths is **not known yet**: a [pre-registered study](docs/quality-study.md) has no verdict so far, and\n"
            "in a smaller one before it the default score did worse than random."
        )
    head = "In a [pre-registered study](docs/quality-study.md) with SmolLM2-135M, training the best quarter of a type"
    return f"{head}\n" + ",\n".join(found) + "."


def text_section(text: str, base: Mapping[str, float], runs: Runs) -> list[str]:
    """One text: a row a condition with its n, then what the matched draws say."""
    measured = [run for run in runs if not run["chooses_rate"]]
    lines = [
        f"### Learning {text.capitalize()}",
        "",
        f"Before: {base['loss_new']:.4f} on the new text, {base['loss_old']:.4f} on docstrings. "
        f"{len(runs)} runs are finished, {len(runs) - len(measured)} of them to choose learning rates. Standard "
        "deviations over seeds in brackets, from two seeds on.",
        "",
        "| trained | n | learning rate | parameters | gain | forgetting | lower than its matched draws |",
        "|---|---|---|---|---|---|---|",
    ]
    for condition in (*CONDITIONS, *SEARCH):
        own = [run for run in measured if run["condition"] == condition and run["draw"] is None]
        if own:
            lines.append(_row(condition, base, own, matched_rank(condition, measured)))
    for condition in CONTROLLED:
        draws = [run for run in measured if run["condition"] == condition and run["draw"] is not None]
        if draws:
            lines.append(_row(f"matched draws of {condition}", base, draws, None))
    if len(lines) == 6:
        lines = [*lines[:4], "No condition is measured yet."]
    return [*lines, "", *[sentence for sentence in verdicts(base, measured) if sentence], ""]


def matched_rank(condition: str, measured: Runs) -> tuple[int, int] | None:
    """How many matched draws have a higher loss than the condition's own seed 0, and of how many; None without both."""
    own = [run for run in measured if _key(run) == (condition, None, SEEDS[0])]
    draws = [run for run in measured if run["condition"] == condition and run["draw"] is not None]
    if not own or not draws:
        return None
    return sum(own[0]["loss_new"] < draw["loss_new"] for draw in draws), len(draws)


def verdicts(base: Mapping[str, float], measured: Runs) -> list[str]:
    """The sentences that the protocol foresees, as far as the runs for them are there."""
    found = []
    full = [run["loss_new"] for run in measured if run["condition"] == "full"]
    if len(full) == len(SEEDS):
        gain, spread = base["loss_new"] - statistics.fmean(full), statistics.stdev(full)
        enough = "long enough" if gain >= LONG_ENOUGH * spread else "too short"
        found += [f"`full` gains {gain / spread:.0f} times the spread of its seeds: the runs are {enough}.", ""]
    for condition in CONTROLLED:
        rank = matched_rank(condition, measured)
        if rank is None:
            continue
        below, of = rank
        if of < DRAWS:
            found += [f"`{condition}`: below {below} of the {of} draws that are finished ({DRAWS} are planned).", ""]
        else:
            found += [f"`{condition}` is {_verdict(below, of)}: below {below} of {of}.", ""]
    return found


def _verdict(below: int, of: int) -> str:
    if below >= BETTER:
        return "**better than random at the same depth**"
    if of - below >= BETTER:
        return "**worse than random at the same depth**"
    return "**no better than random at the same depth**"


def _row(label: str, base: Mapping[str, float], runs: Runs, rank: tuple[int, int] | None) -> str:
    gains = [base["loss_new"] - run["loss_new"] for run in runs]
    forgotten = [run["loss_old"] - base["loss_old"] for run in runs]
    rates = ", ".join(sorted({f"{run['rate']:g}" for run in runs}))
    parameters = f"{statistics.fmean(run['trained_parameters'] for run in runs) / 1e6:.1f} M"
    against = f"{rank[0]} of {rank[1]}" if rank else "-"
    return f"| `{label}` | {len(runs)} | {rates} | {parameters} | {_mean(gains)} | {_mean(forgotten)} | {against} |"


def _mean(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return (run["condition"], run["draw"], run["seed"])
