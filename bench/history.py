"""What was measured when: every state that a result file of ``bench/results`` had in git, and the one on the disk.

Usage: python -m bench.history    (rewrites bench/history.json from the git history of bench/results/)

``bench/history.json`` is committed, so that the page of the documentation needs no git history. A state is known by the
commit that was measured and its date, which the results themselves hold: rebasing does not change them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "bench" / "history.json"
RESULTS = "bench/results"
SCHEMA = 1


def main() -> int:
    """Collect and write."""
    history = merge(read_history(), [*committed_states(ROOT), *present_states(ROOT)])
    text = json.dumps({"schema": SCHEMA, "runs": history}, indent=1, allow_nan=False) + "\n"
    if not PATH.exists() or PATH.read_text(encoding="utf-8") != text:
        PATH.write_text(text, encoding="utf-8")
    print(f"written: {PATH.name}, {len(history)} runs")
    return 0


def read_history(path: Path = PATH) -> list[dict[str, Any]]:
    """Runs of the committed history, oldest first; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []


def run_of(file: str, text: str) -> dict[str, Any] | None:
    """What is kept of one state of a result file; None if it holds no times.

    Args:
        file: name in ``bench/results``.
        text: its content.

    Returns:
        ``{"file", "date", "commit", "size", "rows": {name: {"median_seconds", "iqr_seconds", "ratio_to_peer"}}}``.
    """
    try:
        results = json.loads(text)
        machine, rows = results["machine"], results["rows"]
        kept = {
            row["name"]: {
                "median_seconds": row["median_seconds"],
                "iqr_seconds": row.get("iqr_seconds", 0.0),
                "ratio_to_peer": row.get("info", {}).get("ratio_to_peer"),
            }
            for row in rows
            if "median_seconds" in row
        }
        commit = (machine.get("git") or {}).get("commit") or ""
        date, size = machine["utc_date"], results["size"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {"file": file, "date": date, "commit": commit, "size": size, "rows": kept} if kept else None


def committed_states(root: Path) -> list[dict[str, Any]]:
    """Every state in git, oldest commit first; nothing outside a git checkout."""
    try:
        commits = _git(root, "log", "--reverse", "--format=%H", "--", RESULTS).split()
    except (OSError, subprocess.CalledProcessError):
        return []
    runs = []
    for commit in commits:
        names = _git(root, "ls-tree", "-r", "--name-only", commit, "--", RESULTS).splitlines()
        for name in (name for name in names if name.endswith(".json")):
            run = run_of(name.removeprefix(f"{RESULTS}/"), _git(root, "show", f"{commit}:{name}"))
            if run is not None:
                runs.append(run)
    return runs


def present_states(root: Path) -> list[dict[str, Any]]:
    """The files as they are now."""
    folder = root / RESULTS
    found = (
        run_of(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.json"))
    )
    return [run for run in found if run is not None]


def merge(known: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, each state once, by file and date; those of one day stay in the order in which they came."""
    runs = {(run["file"], json.dumps(run, sort_keys=True)): run for run in [*known, *found]}
    return sorted(runs.values(), key=lambda run: (run["file"], run["date"]))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
