"""The page of measured speed: every row of every committed result, those slower than the peer too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.readme_table import KNOWN_ROWS
from tools.docs.svg import BLUE, ORANGE, new_figure, svg_text

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"

HEAD = """# Performance

Made from the files in `bench/results/`, every row of them. `python bench/run.py` measures again; `bench/README.md` says
what each row times. *Times the peer* above 1 is faster than the peer, below 1 slower; *times the floor* is how many
times longer than the floor of that row. A result is one machine's: GPU speed has **not been measured yet**.
"""

_TITLES = {
    "cpu": "Speed of scoring",
    "streaming": "Reading a checkpoint, and a whole scan",
    "error-bounds": "Errors against the stated bounds",
    "training": "Training what was selected",
    "quality-study": "What training a selection is worth",
    "soak": "Hours of scans that are disturbed and killed",
    "fuzzing": "Files broken at random",
    "fuzzing-scans": "Whole scans of checkpoints broken at random",
    "mutation": "Defects put in on purpose that tests find",
}
"""What a result is about, in its reader's words; by how its file's name begins, in the order of the page."""


def performance_page() -> tuple[str, dict[str, str]]:
    """Markdown of the whole page, and its pictures by name."""
    parts, pictures = [HEAD], {}
    files = (path.relative_to(RESULTS).as_posix() for path in sorted(RESULTS.rglob("*.json")))
    order = list(_TITLES)
    for name in sorted(files, key=lambda name: order.index(_kind(name)) if _kind(name) in order else len(order)):
        results = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        if not isinstance(results, dict) or results.get("kind") == "calibration":
            continue
        known = {row["name"]: row for row in speed_rows(results) if row["name"] in KNOWN_ROWS}
        picture = f"assets/performance-{name.removesuffix('.json').replace('/', '-')}.svg"
        if known:
            pictures[picture] = _draw(known)
        parts.append(_file_section(name, results, picture if known else ""))
    return "\n".join(parts), pictures


def _kind(name: str) -> str:
    """How the file's name begins, as far as it is known: the longest of :data:`_TITLES`."""
    return max((kind for kind in _TITLES if name.startswith(kind)), key=len, default="")


def _title(name: str, results: dict[str, Any]) -> str:
    machine = results.get("machine")
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    words = _TITLES.get(_kind(name), name.removesuffix(".json").replace("-", " ").capitalize())
    return f"{words}: {str(cpu['model']).replace('(R)', '')}" if isinstance(cpu, dict) and cpu.get("model") else words


def _draw(rows: dict[str, dict[str, Any]]) -> str:
    """Time of one matrix by the peer and by us, on a logarithmic axis; the factor between them in words."""
    figure, ((axis,),) = new_figure(7.2, 0.5 + 0.42 * len(rows))
    for place, row in enumerate(rows.values()):
        ours, factor = row["median_seconds"], row["info"]["ratio_to_peer"]
        axis.barh(place - 0.2, ours * factor, 0.36, color=ORANGE, label="float32 svdvals" if place == 0 else None)
        axis.barh(place + 0.2, ours, 0.36, color=BLUE, label="spectrum_fast" if place == 0 else None)
        axis.annotate(f" {factor:.1f} times faster", (ours, place + 0.2), va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [KNOWN_ROWS[name] for name in rows])
    axis.set(xscale="log", xlabel="median seconds, logarithmic")
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    return svg_text(figure)


def speed_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result that hold a time."""
    rows = results.get("rows")
    return [row for row in rows if "median_seconds" in row] if isinstance(rows, list) else []


def _file_section(name: str, results: dict[str, Any], picture: str = "") -> str:
    lines = [f"## {_title(name, results)}", "", f"`bench/results/{name}`: {_conditions(results)}", ""]
    if picture:
        lines += [f"![Times of known shapes, by LAPACK and by spectrum_fast]({picture})", ""]
    rows = speed_rows(results)
    if rows:
        lines += [
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
