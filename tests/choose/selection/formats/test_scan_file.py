"""The scan file: exact round trips, every malformation named, writes that cannot destroy what was there."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.scan_result import Scan, load_scan, parse_scan
from spectrum_fast.errors import ScanFileError, SpectrumFastError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.json_fields import type_of
from spectrum_fast.measure.scoring.measure import spectrum
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import SUMMARY_FIELDS, ErrorBounds

from support.processes import script

REAL_FIELDS = [key for key, hint in get_type_hints(ModuleScore).items() if type_of(hint)[0] is float and key != "snr"]
COUNT_FIELDS = [key for key, hint in get_type_hints(ModuleScore).items() if type_of(hint)[0] is int]

FULL = Scan(
    model="some/model",
    criterion="spectrum",
    modules=(
        ModuleScore(
            name="model.layers.0.mlp.up_proj",
            type="mlp.up_proj",
            parameter="model.layers.0.mlp.up_proj.weight",
            shape=(96, 64),
            dtype="BF16",
            snr=0.1 + 0.2,
            s_max=3.5,
            s_min=0.0,
            q25=1e-300,
            q50=1.0,
            q75=2.0,
            threshold=1.25,
            signal_sum=1e22,
            noise_sum=5e-324,
            n_signal=40,
            n_noise=24,
            error_bound=1e-6,
            method="band-float32",
            frobenius_residual=1e-9,
            note="outliers, rotated",
            errors=ErrorBounds(1e-9, 5e-324, 0.0, 1e-6, 1e-7, 0.1 + 0.2, 1e17, 1e300, n_undecided=2),
            histogram=Histogram(0.0, 1.5, 3.5, 3, (20, 30, 10, 4)),
        ),
        ModuleScore(name="lm_head", type="lm_head", snr=None, noise_free=True, shape=(8, 4), dtype="F32"),
    ),
    failures=(ScanFailure(name="bad", kind="nan", message="holds 3 NaN", shape=(2, 2), dtype="F16"),),
    ties={"model.embed_tokens": "lm_head"},
    skipped=(SkippedTensor("model.norm", "one-dimensional"),),
    provenance={"version": "0.1", "threads": 2, "nested": {"list": [1, 2.5, None, True]}},
)


def document() -> dict:
    return json.loads(format_scan(FULL))


def parse(doc) -> Scan:
    return parse_scan(json.dumps(doc), "some.json")


def test_round_trip_gives_the_same_record(tmp_path):
    FULL.save(tmp_path / "scan.json")
    assert load_scan(tmp_path / "scan.json") == FULL


def test_layout_of_the_file():
    doc = document()
    assert list(doc) == ["schema", "model", "criterion", "modules", "failures", "ties", "skipped", "provenance"]
    assert doc["schema"] == 1
    module = doc["modules"][0]
    required = ["name", "type", "shape", "dtype", "snr", "noise_free", "s_max", "s_min", "q25", "q75", "threshold"]
    required += ["signal_sum", "noise_sum", "n_signal", "n_noise", "error_bound", "method"]
    assert [key for key in required if key not in module] == []
    assert module["snr"] == 0.30000000000000004
    assert (doc["modules"][1]["snr"], doc["modules"][1]["noise_free"]) == (None, True)


numbers = st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
counts = st.none() | st.integers(min_value=0, max_value=2**53)
text = st.text(st.characters(categories=["L", "M", "N", "P", "S"]).filter(str.isprintable), min_size=1, max_size=20)


@st.composite
def histograms(draw) -> Histogram:
    start, knee, end = sorted(draw(st.lists(st.floats(1e-300, 1e300), min_size=3, max_size=3, unique=True)))
    counts = draw(st.lists(st.integers(0, 2**40), min_size=2, max_size=70))
    return Histogram(start, knee, end, draw(st.integers(1, len(counts) - 1)), tuple(counts))


bounds = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
errors = st.builds(ErrorBounds, *[bounds] * 8, n_undecided=st.integers(0, 2**53))


@st.composite
def module_scores(draw) -> ModuleScore:
    snr = draw(numbers)
    return ModuleScore(
        name=draw(text),
        type=draw(text),
        parameter=draw(st.none() | text),
        shape=draw(st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))),
        dtype=draw(st.none() | text),
        snr=snr,
        noise_free=snr is None,
        method=draw(st.none() | text),
        note=draw(st.text(max_size=10)),
        errors=draw(st.none() | errors),
        histogram=draw(st.none() | histograms()),
        **{key: draw(numbers) for key in REAL_FIELDS},
        **{key: draw(counts) for key in COUNT_FIELDS},
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(module_scores(), max_size=4, unique_by=lambda module: module.name), text, st.dictionaries(text, text))
def test_any_record_round_trips_through_strict_json(modules, model, ties):
    record = Scan(model, "mp", tuple(modules), ties=ties)
    written = format_scan(record)
    json.loads(written, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert written.isascii()
    assert parse_scan(written) == record


@pytest.mark.parametrize("part", ["name", "type"])
def test_names_that_would_act_where_they_are_written_are_no_names(part):
    entry = {"name": "a.q", "type": "q", "snr": 1.0} | {part: "q\ntrust_remote_code: true"}
    with pytest.raises(ScanFileError, match="printable names and types"):
        Scan("m", "mp", (ModuleScore(**entry),))
    with pytest.raises(ScanFileError, match=f"field '{part}': expected a name"):
        parse({**document(), "modules": [{**document()["modules"][0], part: entry[part]}]})
    published = {entry["name"]: {"snr": 1.0, "type": entry["type"]}}
    with pytest.raises(ScanFileError, match="printable names and types"):
        parse(published)


def test_a_path_that_is_no_utf8_can_still_be_written(tmp_path):
    odd = Scan(os.fsdecode(b"models/\xff"), "spectrum", FULL.modules)
    odd.save(tmp_path / "scan.json")
    assert load_scan(tmp_path / "scan.json") == odd


def test_unknown_keys_are_dropped_and_optional_ones_may_be_absent():
    doc = document()
    doc["future"] = {"x": 1}
    doc["modules"][0]["future"] = 1
    for key in ("parameter", "q50", "frobenius_residual", "note"):
        del doc["modules"][0][key]
    for key in ("ties", "skipped", "provenance"):
        del doc[key]
    read = parse(doc)
    assert read.modules[0].snr == FULL.modules[0].snr
    assert read.modules[0].note == ""
    assert read.modules[0].q50 is None
    assert (dict(read.ties), read.skipped, dict(read.provenance)) == ({}, (), {})
    assert not read.published


def _set(doc, path, value):
    for key in path[:-1]:
        doc = doc[key]
    if value is ...:
        del doc[path[-1]]
    else:
        doc[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "field 'schema': expected 1, the only version .* found 2"),
        (["schema"], "1", "field 'schema': expected 1"),
        (["schema"], True, "field 'schema': expected 1"),
        (["schema"], ..., "field 'schema': expected 1, found none"),
        (["model"], ..., "field 'model': expected a text, found nothing"),
        (["criterion"], 3, "field 'criterion': expected a text, found 3"),
        (["modules"], ..., "field 'modules': expected a list, found nothing"),
        (["modules"], {}, "field 'modules': expected a list"),
        (["failures"], ..., "field 'failures': expected a list, found nothing"),
        (["modules", 1], 7, r"field 'modules\[1\]': expected an object, found 7"),
        (["modules", 0, "snr"], ..., r"modules\[0\] \(model.layers.0.mlp.up_proj\): field 'snr'.*found nothing"),
        (["modules", 0, "snr"], "1.0", "field 'snr': expected a finite number >= 0 or null, found \"1.0\""),
        (["modules", 0, "snr"], math.nan, "field 'snr': expected a finite number >= 0 or null, found NaN"),
        (["modules", 0, "snr"], math.inf, "field 'snr': .*found Infinity"),
        (["modules", 0, "snr"], -0.5, "field 'snr': .*found -0.5"),
        (["modules", 0, "snr"], True, "field 'snr': .*found true"),
        (["modules", 0, "snr"], 10**400, "field 'snr': .*found 1000"),
        (["modules", 0, "snr"], None, "snr is missing though the module is not noise-free"),
        (["modules", 1, "snr"], 1.0, r"modules\[1\] \(lm_head\): .*noise-free module has no finite snr"),
        (["modules", 0, "noise_free"], 0, "field 'noise_free': expected true or false, found 0"),
        (["modules", 0, "s_max"], math.nan, "field 's_max': .*found NaN"),
        (
            ["modules", 0, "n_signal"],
            1.5,
            "field 'n_signal': expected a whole number .* or null, found 1.5",
        ),
        (["modules", 0, "n_signal"], 10**30, "field 'n_signal': expected a whole number >= 0 and < 2.63 or null"),
        (["modules", 0, "shape"], [10**30, 1], "field 'shape': expected a list of whole numbers >= 0 and < 2.63"),
        (["modules", 0, "shape"], [2, -1], "field 'shape': expected a list of whole numbers >= 0 and < 2.63 or null"),
        (["modules", 0, "shape"], 5, "field 'shape'"),
        (["modules", 0, "name"], "", "field 'name': expected a name, found \"\""),
        (["modules", 0, "type"], None, "field 'type': expected a name, found null"),
        (["modules", 0, "name"], "lm_head", "some.json: .*expected each module once, found 'lm_head' twice"),
        (["failures", 0, "kind"], None, r"failures\[0\] \(bad\): field 'kind': expected a text, found null"),
        (["skipped", 0, "reason"], ..., r"skipped\[0\] \(model.norm\): field 'reason'"),
        (["ties"], [], "field 'ties': expected an object"),
        (["ties", "model.embed_tokens"], 3, "field 'model.embed_tokens': expected a name, found 3"),
        (["provenance", "nested", "list", 1], math.nan, "field 'provenance.nested.list.1': expected finite numbers"),
    ],
)
def test_every_malformation_is_named(path, value, message):
    doc = document()
    _set(doc, path, value)
    with pytest.raises(ScanFileError, match=message) as caught:
        parse(doc)
    assert str(caught.value).startswith("some.json: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected JSON, found an empty file"),
        ("\n", "expected JSON, found an empty file"),
        ('{"schema": 1', "found at line 1, column"),
        ('{"schema": 1, "schema": 1}', "found 'schema' twice"),
        ('{"schema": 1, "model": {"a": 1, "a": 2}}', "found 'a' twice"),
        ('{"schema": 1, "kind": "selection"}', "found a selection"),
        ("[1]", r"expected an object of scores, found \[1\]"),
        ('{"schema": ' + "9" * 5000 + "}", "unreadable number"),
        ("[" * 200_000, "nesting too deep"),
    ],
)
def test_text_that_is_no_scan(content, message):
    with pytest.raises(ScanFileError, match=message):
        parse_scan(content, "x.json")


def test_a_text_without_a_file_is_called_scan():
    with pytest.raises(ScanFileError, match=r"^scan: expected JSON"):
        parse_scan("")


def test_provenance_that_is_no_strict_json_is_refused_before_anything_is_written(tmp_path):
    target = tmp_path / "scan.json"
    target.write_text("old")
    for value in (math.nan, object()):
        with pytest.raises(ScanFileError, match=r"^scan of m: expected values that strict JSON can hold"):
            Scan("m", "spectrum", (), provenance={"x": value}).save(target)
    assert target.read_text() == "old"


def test_provenance_nested_beyond_use_is_refused():
    deep: list = []
    for _ in range(100):
        deep = [deep]
    doc = document()
    doc["provenance"] = {"deep": deep}
    with pytest.raises(ScanFileError, match="at most 50 levels"):
        parse(doc)


def test_missing_unreadable_and_not_utf8(tmp_path):
    with pytest.raises(ScanFileError, match=r"none\.json: cannot be read: No such file"):
        load_scan(tmp_path / "none.json")
    with pytest.raises(ScanFileError, match="cannot be read: Is a directory"):
        load_scan(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"model": "\xe9"}')
    with pytest.raises(ScanFileError, match="expected UTF-8 text, found the byte 0xe9 at offset 11"):
        load_scan(tmp_path / "latin.json")


def test_write_follows_links_keeps_rights_and_leaves_no_rubbish(tmp_path):
    real = tmp_path / "real.json"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_devices_are_written_to_and_not_replaced():
    write_text_atomic("/dev/null", "gone")
    assert not Path("/dev/null").is_file()


def test_write_errors_are_readable(tmp_path):
    with pytest.raises(ScanFileError, match="there is no folder"):
        FULL.save(tmp_path / "none" / "scan.json")
    with pytest.raises(ScanFileError, match="expected a file to write, found a folder"):
        FULL.save(tmp_path)
    with pytest.raises(SpectrumFastError, match="cannot be written as UTF-8"):
        write_text_atomic(tmp_path / "x", "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + format_scan(FULL).encode())
    assert load_scan(tmp_path / "bom.json") == FULL
    assert read_text(tmp_path / "bom.json")[0] == "{"


def _run(name: str, target: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, script(name), str(target)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=target.parent,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_write_that_runs_out_of_space_keeps_the_old_file(tmp_path):
    target = tmp_path / "scan.json"
    target.write_text("old")
    done = _run("write_out_of_space", target)
    assert done.returncode == 0, done.stderr
    assert "scan.json: cannot be written: File too large; what was there before is unchanged" in done.stdout
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["scan.json"]


def test_a_write_that_is_killed_keeps_the_old_file(tmp_path):
    target = tmp_path / "scan.json"
    target.write_text("old")
    assert _run("killed_while_writing", target).returncode == -9
    assert target.read_text() == "old"


def test_histogram_is_optional_and_checked():
    doc = document()
    assert doc["modules"][0]["histogram"] == {
        "start": 0.0,
        "knee": 1.5,
        "end": 3.5,
        "linear_bins": 3,
        "counts": [20, 30, 10, 4],
    }
    assert doc["modules"][1]["histogram"] is None
    del doc["modules"][0]["histogram"]
    assert parse(doc).modules[0].histogram is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"counts": [1, -1]}, "field 'counts': expected a list of whole numbers >= 0"),
        ({"counts": [10**30] * 17}, "field 'counts': expected a list of whole numbers >= 0 and < 2^63"),
        ({"counts": [1.5]}, "field 'counts'"),
        ({"knee": 9.0}, "expected finite 0 <= start <= knee <= end"),
        ({"linear_bins": 10**9}, "expected 1 to 4 linear bins, found 1000000000"),
        ({"linear_bins": 4}, "found 0 for knee 1.5"),
        ({"knee": 3.5}, "found 1 for knee 3.5"),
        ({"end": "3"}, "field 'end'"),
    ],
)
def test_a_broken_histogram_is_named(change, found):
    doc = document()
    doc["modules"][0]["histogram"].update(change)
    with pytest.raises(
        ScanFileError, match=r"some.json: modules\[0\] \(model.layers.0.mlp.up_proj\).*histogram"
    ) as error:
        parse(doc)
    assert found in str(error.value)


def test_errors_are_optional_and_checked():
    doc = document()
    assert list(doc["modules"][0]["errors"]) == [
        *("s_min", "q25", "q50", "q75", "s_max", "threshold", "signal_sum", "noise_sum", "n_undecided")
    ]
    assert "errors" not in doc["modules"][1]
    for wrong in ({"q25": -1.0}, {"q25": None}, {"n_undecided": 0.5}):
        broken = document()
        broken["modules"][0]["errors"] |= wrong
        with pytest.raises(ScanFileError, match=r"modules\[0\] \(model.layers.0.mlp.up_proj\): errors: field"):
            parse(broken)
    del doc["modules"][0]["errors"]
    assert parse(doc).modules[0].errors is None
    with pytest.raises(SpectrumFastError, match="expected finite bounds >= 0"):
        ErrorBounds(0.0, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, n_undecided=0)


OLD = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["dense", "experts"])
def test_old_files_of_schema_1_are_read_and_written_as_they_were(name):
    text = (OLD / f"{name}.json").read_text()
    assert format_scan(parse_scan(text)) == text


def test_the_earliest_files_say_the_same_of_what_they_say():
    early, dense = load_scan(OLD / "early.json"), load_scan(OLD / "dense.json")
    unsaid = {"parameter": None, "q50": None, "frobenius_residual": None, "note": "", "histogram": None}
    assert early.modules == tuple(replace(module, **unsaid) for module in dense.modules)
    assert [failure.message for failure in early.failures] == [failure.message for failure in dense.failures]
    assert (early.ties, early.skipped) == ({}, ())


def test_every_field_of_a_spectrum_is_in_the_file_and_comes_back(tmp_path):
    """A functional is declared once: what ``Spectrum`` has, a scan file has, in its order."""
    found = spectrum(torch.randn(20, 30, generator=torch.Generator().manual_seed(0))).summary()
    angles = ("left_cosine", "left_overlap", "right_cosine", "right_overlap")  # which a scan of a difference adds
    assert [key for key, value in found.items() if value is None] == list(angles)
    scored = ModuleScore(name="l.0.q", type="q", **found | dict.fromkeys(angles, 0.5))
    Scan("m", "spectrum", (scored,)).save(tmp_path / "scan.json")
    (entry,) = json.loads((tmp_path / "scan.json").read_text())["modules"]
    kept = [key for key in entry if key in SUMMARY_FIELDS]
    assert kept == list(SUMMARY_FIELDS)
    assert load_scan(tmp_path / "scan.json").modules == (scored,)
