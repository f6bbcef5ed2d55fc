"""Results as rank 0 gets them, and the digest by which ranks make sure that they speak of the same scan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spectrum_fast.errors import RankError
from spectrum_fast.measure.scoring.json_fields import Place, entry_of
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.scoring.scan_file import module_entry
from spectrum_fast.scanning.journal import Settings
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import ModuleResult


def describe_scan(identity: Mapping[str, Any], plan: ScanPlan) -> dict[str, Any]:
    """What all ranks must agree on: options, fingerprint, and the weights in their order.

    The state of files is left out: machines may have copies of their own, of different age.
    """
    names = "\n".join(f"{weight.name} {weight.main.shape} {weight.main.dtype}" for weight in plan.weights)
    shared = {key: value for key, value in identity.items() if key != "files"}
    return {**shared, "weights": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()}


def digest_scan(description: Mapping[str, Any]) -> str:
    """A short name for a scan, equal exactly if its description is."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def encode_result(result: ModuleResult, scan: str, settings: Settings) -> dict[str, Any]:
    """A result as a message; :func:`decode_result` gives it back, bit for bit."""
    record = result.record
    is_score = isinstance(record, ModuleScore)
    return {
        "result": "module" if is_score else "failure",
        "record": module_entry(record) if is_score else entry_of(record),
        "traceback": "" if is_score else record.traceback,
        "seconds": [result.read_seconds, result.wait_seconds, result.compute_seconds],
        "scan": scan,
        "settings": dict(settings),
    }


def decode_result(message: Mapping[str, Any]) -> ModuleResult:
    """A message as a result.

    Raises:
        RankError: it is no result of this version.
    """
    place = Place(f"message of rank {message.get('rank')}", RankError, "result")
    if message["result"] == "module":
        record = place.read_record(ModuleScore, message["record"])
    else:
        record = replace(place.read_record(ScanFailure, message["record"]), traceback=message["traceback"])
    return ModuleResult(record, *message["seconds"])
