"""The result files of the study: one a run, and one that describes the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "study"


def finished_runs(text: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """The runs of a text, in the order of their files' names."""
    files = sorted(path for path in (results / text).glob("*.json") if path.stem != "base")
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]
