"""The page of measured speed: every row of every committed result, those slower than the peer too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.readme_table import KNOWN_ROWS, peers_of
from tools.docs.svg import BLUE, GREEN, INK, ORANGE, RED, new_figure, svg_text

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
OURS = "spectrum_fast"

HEAD = """# Performance

Each section is one file of `bench/results/`, and one machine: its chart, and every row of the file. Scores are compared
with the truth before they are timed. `make bench` measures again; `bench/README.md` says what each row times. GPU speed
has **not been measured yet**.

On a CPU a scan gives each core matrices of its own, up to 8 million entries (2048 x 4096); all cores share out a larger
one. A core that has a matrix to itself waits for nobody, where sharing one out costs a step at every panel and leaves
what lies between kernels to one core. By a model of stages that one core was measured in (`python -m bench.scaling`;
on two cores it is within 8 % of what was measured), 1024 x 4096 takes 33 ms instead of 38 on two cores, and 9 instead
of 18 on sixteen. Where cores are many and matrices small, from eight cores on, the interpreter's lock is the limit:
then a process for every few of them (`scan --part I/N`, `torchrun`) takes less time than one for all. `bench/LOG.md`
says where the time goes and what was tried.
"""

_GENERATIONS = {("25", "17"): "Zen 4", ("26", "2"): "Zen 5", ("6", "207"): "Emerald Rapids"}
"""Family and model number of a processor -> what people call it; its name alone does not tell."""
_TITLES = {
    "cpu": "One matrix, and the matrices of one layer",
    "small-model": "A small model",
    "streaming": "A whole scan, and reading alone",
}
"""What a result is about, in its reader's words; by how its file's name begins, in the order of the page."""

ELSEWHERE = {
    "error-bounds": ("Errors against the stated bounds", "trust.md"),
    "soak": ("Hours of scans that are disturbed and killed", "trust.md"),
    "fuzzing": ("Files broken at random", "trust.md"),
    "mutation": ("Defects put in on purpose, and the tests that find them", "mutation.md"),
    "fleet": ("Many checkpoints into a library", "long-scans.md"),
    "experts": ("How much of a scan of 3,000 small matrices is spent in kernels", "engine.md"),
    "one-scan": ("One scan beside PEFT, WeightWatcher and `svdvals`", "criteria.md"),
    "large-shapes": ("All singular values and PiSSA's factors beside other libraries", "criteria.md"),
    "platforms": ("Wheels that were installed and run", "platforms.md"),
    "training": ("Memory and time of the methods of training", "training-results.md"),
    "quality-study": ("What training a selection is worth", "quality-study.md"),
    "study": ("What training a selection is worth", "quality-study.md"),
    "without-extension": ("What goes without the compiled kernels", "platforms.md"),
    "calibration": ("What each criterion calls signal in pure noise", "method.md"),
}
"""Results that have a page of their own: what they are about, and the page."""

_READERS = {"safe_open": "safe_open (maps, copies nothing)", "fastsafetensors": "fastsafetensors"}
_SERIES = (BLUE, ORANGE, GREEN, RED, INK)


def performance_page() -> tuple[str, dict[str, str]]:
    """Markdown of the whole page, and its pictures by name."""
    parts, pictures = [HEAD], {}
    names = sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.json"))
    order = list(_TITLES)
    for name in sorted(names, key=lambda name: order.index(_kind(name)) if _kind(name) in order else len(order)):
        if name.startswith(tuple(ELSEWHERE)):
            continue
        results = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        picture = f"assets/performance-{name.removesuffix('.json').replace('/', '-')}.svg"
        if groups := _groups(results):
            pictures[picture] = _draw(groups)
        parts.append(_file_section(name, results, picture if groups else ""))
    links = dict.fromkeys(f"- [{words}]({page})" for words, page in ELSEWHERE.values())
    return "\n".join([*parts, "## Measured elsewhere", "", *links, ""]), pictures


def _kind(name: str) -> str:
    """How the file's name begins, as far as it is known."""
    return next((kind for kind in _TITLES if name.startswith(kind)), "")


def _title(name: str, results: dict[str, Any]) -> str:
    machine = results.get("machine")
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    words = _TITLES.get(_kind(name), name.removesuffix(".json").replace("-", " ").capitalize())
    if not isinstance(cpu, dict) or not cpu.get("model"):
        return words
    numbers = str(cpu.get("family")), str(cpu.get("model_number"))
    generation = _GENERATIONS.get(numbers, "family {}, model {}".format(*numbers))
    return f"{words}: {str(cpu['model']).replace('(R)', '')}, {generation}"


def _groups(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What a chart shows: the thing done -> who did it -> seconds, ours first."""
    rows = {row["name"]: row for row in speed_rows(results)}
    groups = {
        KNOWN_ROWS[name]: {OURS: row["median_seconds"], **peers_of(row)}
        for name, row in rows.items()
        if name in KNOWN_ROWS
    }
    seconds_of = {name: row["median_seconds"] for name, row in rows.items()}
    if (reference := seconds_of.get("reference, scaled from a subset")) and "scan[cold]" in seconds_of:
        groups["a whole scan"] = {OURS: seconds_of["scan[cold]"], "float32 svdvals of every matrix": reference}
    for place, words in (("cold", "reading alone, from disk"), ("warm", "reading alone, from the page cache")):
        found = re.compile(rf"read\[([\w-]+), {place}\]")
        read = {match[1]: value for name, value in seconds_of.items() if (match := found.fullmatch(name))}
        if "ours" in read:
            groups[words] = {OURS: read["ours"], **{_READERS[name]: read[name] for name in _READERS if name in read}}
    return groups


def _draw(groups: dict[str, dict[str, float]]) -> str:
    """Bars on a logarithmic axis, and how many times as long each of the others took in words."""
    figure, ((axis,),) = new_figure(5.6, 0.9 + sum(0.18 + 0.2 * len(times) for times in groups.values()))
    who = list(dict.fromkeys(name for times in groups.values() for name in times))
    place, ticks, told = 0.0, [], set()
    for times in groups.values():
        ticks.append(place + 0.2 * (len(times) - 1) / 2)
        for name, taken in times.items():
            label = None if name in told else name.replace("`", "")
            axis.barh(place, taken, 0.18, color=_SERIES[who.index(name) % len(_SERIES)], label=label)
            factor = "" if name == OURS else f", {taken / times[OURS]:.3g} times as long"
            axis.annotate(f" {seconds(taken)}{factor}", (taken, place), va="center", fontsize=8)
            told.add(name)
            place += 0.2
        place += 0.18
    axis.set_yticks(ticks, [name.replace(", ", ",\n") for name in groups])
    axis.set(xscale="log", xlabel="seconds on a logarithmic scale")
    axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    all_times = [taken for times in groups.values() for taken in times.values()]
    lowest, highest = min(all_times) / 3, max(all_times)
    axis.set_xlim(lowest, highest * (highest / lowest) ** 0.8)  # room for the words
    axis.invert_yaxis()
    figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=2)
    return svg_text(figure)


def speed_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result that hold a time."""
    rows = results.get("rows")
    return [row for row in rows if "median_seconds" in row] if isinstance(rows, list) else []


def _file_section(name: str, results: dict[str, Any], picture: str = "") -> str:
    lines = [f"## {_title(name, results)}", "", f"`bench/results/{name}`: {_conditions(results)}", ""]
    if picture:
        lines += [f"![Times side by side, spectrum_fast and others]({picture})", ""]
    rows = speed_rows(results)
    if rows:
        lines += [
            '<details markdown="1"><summary>Every row of the file</summary>',
            "",
            "*Times the peer* above 1 is faster than the peer, below 1 slower; *times the floor* is how many times",
            "longer than the floor of that row.",
            "",
            "| benchmark | median | rounds | times the peer | times the floor | peer |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            info = row.get("info", {})
            peer = info.get("ratio_to_peer")
            mark = " (slower)" if peer is not None and peer < 1 else ""
            cells = (
                f"`{row['name']}`",
                seconds(row["median_seconds"]),
                f"{row.get('rounds', '')}",
                f"{_ratio(peer)}{mark}",
                _ratio(info.get("ratio_to_floor")),
                f"{info.get('peer', '')}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", "</details>"]
    else:
        rest = {key: value for key, value in results.items() if key not in ("schema", "machine", "size")}
        lines += _any_table(rest)
    return "\n".join([*lines, ""])


def _conditions(results: dict[str, Any]) -> str:
    machine = results.get("machine")
    if not isinstance(machine, dict) or not isinstance(machine.get("cpu"), dict):
        return "conditions are in the file."
    cpu, packages = machine["cpu"], machine.get("packages") or {}
    commit = ((machine.get("git") or {}).get("commit") or "unknown")[:10]
    sets = ", ".join(cpu.get("native_features") or [])
    processor = f"{cpu.get('model')} (family {cpu.get('family')}, model {cpu.get('model_number')}; {sets})"
    return (
        f"{processor}, {machine.get('threads')} threads, torch {packages.get('torch')}, {machine.get('utc_date')}, "
        f"commit `{commit}`."
    )


def _any_table(values: dict[str, Any]) -> list[str]:
    """A result of another layout: its lists of records as tables, what else it holds as a list."""
    lines = []
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            columns = list(dict.fromkeys(name for entry in value for name in entry))
            lines += ["", f"**{key}**", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
            lines += [f"| {' | '.join(_cell(entry.get(name, '')) for name in columns)} |" for entry in value]
        else:
            lines += ["", f"- {key}: {_cell(value)}"]
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|") if len(text) <= 200 else text[:197].replace("|", "\\|") + "..."


def seconds(value: float) -> str:
    """A time for people."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def calibration_table() -> str:
    """Markdown tables of ``calibration-noise.json`` and ``calibration-short-sides.json`` of ``bench/results``."""
    results = json.loads((RESULTS / "calibration-noise.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    lines = ["| pure Gaussian noise | called signal by `spectrum` | by `mp` |", "|---|---|---|"]
    for row in (row for row in rows if row["kind"] == "noise"):
        shares = " | ".join(f"{100 * row['mean'][rule]:.2f} %" for rule in ("spectrum", "mp"))
        lines.append(f"| {_shape(row)} | {shares} |")
    lines += ["", "| noise and 8 planted values | called signal by `spectrum` | by `mp` |", "|---|---|---|"]
    for row in (row for row in rows if row["kind"] == "planted"):
        counts = " | ".join(f"{row['mean'][rule]:g} of {min(row['shape'])}" for rule in ("spectrum", "mp"))
        lines.append(f"| {_shape(row)} | {counts} |")
    lines += ["", "| the same matrix times | score by `spectrum` | by `mp` |", "|---|---|---|"]
    for row in (row for row in rows if row["kind"] == "scale"):
        lines.append(f"| {row['factor']:g} | {row['mean']['spectrum']:.4g} | {row['mean']['mp']:.4g} |")
    runs = max(row["runs"] for row in rows)
    lines += ["", f"Means over {runs} seeds; `python -m bench.calibration`, `bench/results/calibration-noise.json`."]
    return "\n".join([*lines, "", *_short_sides_table()])


def _short_sides_table() -> list[str]:
    rows = json.loads((RESULTS / "calibration-short-sides.json").read_text(encoding="utf-8"))["rows"]
    shares = {(min(row["shape"]), max(row["shape"]) // min(row["shape"])): row["mean"] for row in rows}
    sides, aspects = (sorted(set(keys)) for keys in zip(*shares, strict=True))
    lines = ["| noise above the edge by `mp` | " + " | ".join(f"1 : {aspect}" for aspect in aspects) + " |"]
    lines.append("|---" * (len(aspects) + 1) + "|")
    for side in sides:
        cells = [f"{100 * shares[side, aspect]:.2f} %" if (side, aspect) in shares else "" for aspect in aspects]
        lines.append(" | ".join([f"| short side {side}", *cells]) + " |")
    runs = min(row["runs"] for row in rows), max(row["runs"] for row in rows)
    source = "`python -m bench.short_sides`, `bench/results/calibration-short-sides.json`"
    return [*lines, "", f"Means over {runs[0]} to {runs[1]} matrices, by float64 SVD; {source}."]


def _shape(row: dict[str, Any]) -> str:
    return " x ".join(map(str, row["shape"]))
