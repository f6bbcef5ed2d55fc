"""Result files: what is kept of a pytest-benchmark run, how it is printed, and what moved since the last one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrum_fast.errors import ScanFileError

SCHEMA = 1
_KEPT = {"median": "median_seconds", "iqr": "iqr_seconds", "min": "min_seconds", "max": "max_seconds"}

FEWEST_ROUNDS = 3
"""Below this many rounds the spread says nothing, and a change must pass :data:`LONE_ROUND_FRACTION`."""

SPREAD_FRACTION = 0.05
LONE_ROUND_FRACTION = 0.15


@dataclass(frozen=True)
class Change:
    """A row whose median moved beyond noise; ``ratio`` is new over old, so below 1 is faster."""

    name: str
    old_seconds: float
    new_seconds: float

    @property
    def ratio(self) -> float:
        """New median over old median."""
        return self.new_seconds / self.old_seconds


def trim_report(report: dict[str, Any], machine: dict[str, Any], size: str) -> dict[str, Any]:
    """Keep of a pytest-benchmark report what is worth committing.

    Args:
        report: the parsed ``--benchmark-json`` file; its raw rounds and its machine section (which names the host)
            are left out.
        machine: :func:`bench.machine.machine_header`.
        size: ``small`` or ``full``.

    Returns:
        ``{"schema", "size", "machine", "rows"}``; a row has a name, a group, median, inter-quartile range, minimum and
        maximum in seconds, the number of rounds, and the benchmark's ``extra_info`` under ``info``.

    Raises:
        ScanFileError: the report holds no benchmark.
    """
    if not report.get("benchmarks"):
        raise ScanFileError("the pytest-benchmark report holds no benchmark: did every test fail or skip?")
    rows = []
    for entry in report["benchmarks"]:
        stats = entry["stats"]
        row: dict[str, Any] = {"name": entry["name"].removeprefix("test_"), "group": entry.get("group")}
        row |= {ours: _short(stats[theirs]) for theirs, ours in _KEPT.items()}
        row["rounds"] = stats["rounds"]
        row["info"] = {key: _short(value) for key, value in entry.get("extra_info", {}).items()}
        rows.append(row)
    return {"schema": SCHEMA, "size": size, "machine": machine, "rows": rows}


def read_results(path: Path) -> dict[str, Any]:
    """Read a committed result file.

    Raises:
        ScanFileError: it is no result file of this schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScanFileError(f"{path.name}: cannot be read as a benchmark result: {error}") from error
    return parse_results(text, path.name)


def parse_results(text: str, source: str) -> dict[str, Any]:
    """Read a result from text; see :func:`read_results`."""
    try:
        results = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScanFileError(f"{source}: cannot be read as a benchmark result: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise ScanFileError(f"{source}: expected a benchmark result of schema {SCHEMA}; run bench/run.py again")
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write a result file (strict JSON, two spaces), replacing an earlier one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def comparable(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why two results cannot be compared, or None if they can."""
    if old["size"] != new["size"]:
        return f"the earlier run was of size {old['size']}, this one of size {new['size']}"
    for key in ("cpu", "gpu", "threads"):
        before, after = old["machine"].get(key), new["machine"].get(key)
        if key == "cpu":
            before, after = (
                {k: v for k, v in (cpu or {}).items() if k != "native_features"} for cpu in (before, after)
            )
        if before != after:
            return f"the earlier run had another {key}: {before}, now {after}"
    return None


def find_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Rows of both files whose medians differ by more than their noise.

    Noise is twice the sum of both inter-quartile ranges, and at least 5 % of the earlier median; 15 % where one of the
    two has fewer than three rounds.
    """
    before = {row["name"]: row for row in old["rows"]}
    changes = []
    for row in new["rows"]:
        earlier = before.get(row["name"])
        if earlier is None:
            continue
        lone = min(row["rounds"], earlier["rounds"]) < FEWEST_ROUNDS
        fraction = LONE_ROUND_FRACTION if lone else SPREAD_FRACTION
        noise = max(fraction * earlier["median_seconds"], 2 * (row["iqr_seconds"] + earlier["iqr_seconds"]))
        if abs(row["median_seconds"] - earlier["median_seconds"]) > noise:
            changes.append(Change(row["name"], earlier["median_seconds"], row["median_seconds"]))
    return changes


def describe_changes(old: dict[str, Any], new: dict[str, Any], whence: str) -> list[str]:
    """Lines for people: slower rows first, then faster ones, then rows that only one side has, then a summary."""
    changes = sorted(find_changes(old, new), key=lambda change: -change.ratio)
    lines = [
        f"{'slower' if change.ratio > 1 else 'faster'}: {change.name} {_duration(change.old_seconds)} -> "
        f"{_duration(change.new_seconds)} ({change.ratio:.2f}x)"
        for change in changes
    ]
    before, after = ([row["name"] for row in side["rows"]] for side in (old, new))
    lines += [f"new row: {name}" for name in after if name not in before]
    gone = [name for name in before if name not in after]
    lines += [f"not run: {', '.join(gone)}"] if gone else []
    both = len([name for name in after if name in before])
    slower = sum(change.ratio > 1 for change in changes)
    lines.append(
        f"against {whence}: of {both} rows {slower} slower, {len(changes) - slower} faster, "
        f"{both - len(changes)} within noise"
    )
    return lines


def format_table(results: dict[str, Any]) -> str:
    """The rows as text: name, median, times faster than the peer, times slower than the floor."""
    lines = [f"{'benchmark':<44} {'median':>10} {'x peer':>8} {'/ floor':>8}"]
    for row in results["rows"]:
        info = row["info"]
        lines.append(
            f"{row['name']:<44} {_duration(row['median_seconds']):>10} "
            f"{_ratio(info.get('ratio_to_peer')):>8} {_ratio(info.get('ratio_to_floor')):>8}"
        )
    return "\n".join(lines)


def _short(value: Any) -> Any:
    """Four significant digits of a float; integers, text and lists as they are."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _duration(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
