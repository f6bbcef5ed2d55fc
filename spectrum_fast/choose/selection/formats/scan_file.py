"""The scan file: a :class:`~spectrum_fast.choose.selection.scan_result.Scan` as strict, schema-versioned JSON.

Layout of schema 1, keys in this order, one module a line::

    {"schema": 1, "model": ..., "criterion": ..., "modules": [{"name", "type", "parameter", "shape", "dtype", "snr",
     "noise_free", "s_max", "s_min", "q25", "q50", "q75", "threshold", "signal_sum", "noise_sum", "n_signal", "n_noise",
     "error_bound", "method", "frobenius_residual", "errors": {"s_min", "q25", "q50", "q75", "s_max",
     "threshold", "signal_sum", "noise_sum", "n_undecided", "mp_rank"}, "frobenius_norm", "mp_rank", "note",
     "histogram": {"start", "knee", "end", "linear_bins", "counts"}, "parts", "parameter_shape", "digest"}],
     "fused": [...],
     "failures": [{"name", "shape", "dtype", "kind", "message", "parameter", "digest"}], "ties": {duplicate: original},
     "skipped": [{"name", "reason"}], "provenance": {...}}

``fused`` holds the scores of parameters that are scored in parts (:mod:`spectrum_fast.choose.selection.fused`), for
other programs: it follows from ``modules`` and is not read back. It is absent, as are ``errors`` (of files from before
it was stated, and in ``fused``), ``frobenius_norm``, ``mp_rank``, the angles of a difference to its base
(``left_cosine``, ``left_overlap``, ``right_cosine``, ``right_overlap``), ``parts``, ``parameter_shape``, ``digest`` and
a failure's ``parameter``, where there is nothing to say.
Never ``NaN`` or ``Infinity``: ``snr`` is null where ``noise_free`` is true, other numbers are null where not known.
Floats are written with ``repr`` and come back as the same bits. Keys that schema 1 does not know are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectrum_fast.checks import NAME, OBJECT, TEXT
from spectrum_fast.choose.selection.formats.reference_json import read_reference
from spectrum_fast.choose.selection.fused import fused_modules
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.json_fields import Place, entry_of, only_version
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.measure.scoring.strict_json import format_json, parse_json

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan

SCHEMA = 1
"""Version of the layout that is written; the only one that is read."""

_VERSION = only_version(SCHEMA, " (read it with the version that wrote it, or scan again)")
_AT_THE_END = ("histogram", "parts", "parameter_shape", "digest")
"""Keys that stand behind all others in the line of a module, as in the first files."""


def format_scan(record: Scan) -> str:
    """The text of the scan file.

    Raises:
        ScanFileError: ``provenance`` holds something that strict JSON cannot (NaN, infinity, an object).
    """
    fused = [module_entry(module) for module in fused_modules(record)]
    document = {
        "schema": SCHEMA,
        "model": record.model,
        "criterion": record.criterion,
        "modules": [module_entry(module) for module in record.modules],
        **({"fused": fused} if fused else {}),
        "failures": [entry_of(failure) for failure in record.failures],
        "ties": dict(record.ties),
        "skipped": [{"name": entry.name, "reason": entry.reason} for entry in record.skipped],
        "provenance": dict(record.provenance),
    }
    try:
        return format_json(document)
    except (TypeError, ValueError, RecursionError) as cause:
        raise ScanFileError(
            f"scan of {record.model}: expected values that strict JSON can hold, found one that it cannot: {cause}"
        ) from cause


def read_scan_text(text: str, source: str) -> dict[str, Any]:
    """The fields of the scan that a text holds, in this layout or one of the reference's.

    The name of a published result's file is also where the model's slug is taken from.

    Raises:
        ScanFileError: it is empty, of an unknown schema, or an entry is not what it should be; the message names file,
            module and field.
    """
    document = parse_json(text, source, ScanFileError)
    if isinstance(document, dict):
        if document.get("kind") == "selection":
            raise ScanFileError(f"{source}: expected a scan, found a selection; read it with load_selection")
        if "schema" in document and not isinstance(document["schema"], dict):
            return _read_own(document, source)
        if isinstance(document.get("modules"), list):
            raise ScanFileError(f"{source}: field 'schema': expected {SCHEMA}, found none")
    return read_reference(document, source)


def module_entry(module: ModuleScore) -> dict[str, Any]:
    """The entry of ``modules`` for one score; ``Place.read_record`` gives the same score back, bit for bit."""
    entry = entry_of(module)
    return entry | {key: entry.pop(key) for key in _AT_THE_END if key in entry}


def _read_own(document: dict[str, Any], source: str) -> dict[str, Any]:
    place = Place(source, ScanFileError)
    place.read(document, "schema", _VERSION)
    ties = place.read(document, "ties", OBJECT, {})
    for name in ties:
        place.read(ties, name, NAME)
    provenance = place.read(document, "provenance", OBJECT, {})
    place.refuse_non_finite("provenance", provenance)
    skipped = [
        SkippedTensor(entry.read(values, "name", NAME), entry.read(values, "reason", TEXT))
        for entry, values in place.entries(document, "skipped", [])
    ]
    return {
        "model": place.read(document, "model", TEXT),
        "criterion": place.read(document, "criterion", TEXT),
        "modules": place.records(ModuleScore, document, "modules"),
        "failures": place.records(ScanFailure, document, "failures"),
        "ties": ties,
        "skipped": tuple(skipped),
        "provenance": provenance,
    }
