"""The result files of the study: one a run, one that describes the base, one with what the search chooses by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "study"


def finished_runs(text: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """The runs of a text, in the order of their files' names."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((results / text).glob("*.json"))]
    return [document for document in documents if document["kind"] == "study-run"]
