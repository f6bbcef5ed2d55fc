"""Result files: trimming a pytest-benchmark report, comparing two runs, naming the machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from bench.machine import machine_header, machine_slug
from bench.results_file import comparable, find_changes, format_table, read_results, trim_report, write_results
from bench.run import keep
from spectrum_fast.errors import ScanFileError

MACHINE = {
    "cpu": {"model": "AMD EPYC 9V74 80-Core Processor", "family": "25", "model_number": "17", "cores": 2},
    "gpu": None,
    "threads": 2,
}


def entry(name: str, median: float, iqr: float = 0.0, rounds: int = 5, **info: Any) -> dict[str, Any]:
    stats = {"median": median, "iqr": iqr, "min": median, "max": median, "rounds": rounds, "data": [median] * rounds}
    return {"name": f"test_{name}", "fullname": f"bench/x.py::{name}", "group": "g", "stats": stats, "extra_info": info}


def report(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"machine_info": {"node": "secret-host"}, "commit_info": {}, "benchmarks": list(entries)}


def results(*entries: dict[str, Any], size: str = "full") -> dict[str, Any]:
    return trim_report(report(*entries), MACHINE, size)


def test_trimmed_report_keeps_statistics_and_drops_raw_rounds_and_host():
    found = results(entry("gram", 0.123456789, 0.001, ratio_to_floor=1.23456789, n=4096))
    assert found["rows"] == [
        {
            "name": "gram",
            "group": "g",
            "median_seconds": 0.1235,
            "iqr_seconds": 0.001,
            "min_seconds": 0.1235,
            "max_seconds": 0.1235,
            "rounds": 5,
            "info": {"ratio_to_floor": 1.235, "n": 4096},
        }
    ]
    assert "secret-host" not in json.dumps(found)


def test_empty_report_is_refused():
    with pytest.raises(ScanFileError, match="holds no benchmark"):
        results()


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        (entry("a", 1.0), entry("a", 1.04), False),
        (entry("a", 1.0), entry("a", 1.2), True),
        (entry("a", 1.0), entry("a", 0.5), True),
        (entry("a", 1.0, 0.05), entry("a", 1.2, 0.06), False),
        (entry("a", 1.0, rounds=1), entry("a", 1.1, rounds=1), False),
        (entry("a", 1.0, rounds=1), entry("a", 1.2, rounds=1), True),
        (entry("a", 1.0), entry("b", 2.0), False),
    ],
)
def test_a_change_must_pass_the_noise(old, new, moved):
    changes = find_changes(results(old), results(new))
    assert bool(changes) is moved
    if moved:
        assert changes[0].ratio == pytest.approx(new["stats"]["median"])


def test_other_machine_or_size_is_not_compared():
    ours = results(entry("a", 1.0))
    assert comparable(ours, results(entry("a", 1.0))) is None
    assert "size" in (comparable(ours, results(entry("a", 1.0), size="small")) or "")
    other = {**ours, "machine": {**MACHINE, "threads": 16}}
    assert "threads" in (comparable(ours, other) or "")


def test_file_round_trip_and_refusals(tmp_path):
    path = tmp_path / "results" / "cpu.json"
    write_results(path, results(entry("a", 1.0)))
    assert read_results(path) == results(entry("a", 1.0))
    assert [p.name for p in path.parent.iterdir()] == ["cpu.json"]
    path.write_text('{"schema": 99}')
    with pytest.raises(ScanFileError, match="schema 1"):
        read_results(path)
    path.write_text("")
    with pytest.raises(ScanFileError, match=r"cpu\.json"):
        read_results(path)


def test_table_has_ratios():
    table = format_table(results(entry("fast", 0.002, ratio_to_peer=7.5), entry("slow", 2.0, ratio_to_floor=1.5)))
    fast, slow = table.splitlines()[1:]
    assert fast.split() == ["fast", "2.00", "ms", "7.50", "-"]
    assert slow.split() == ["slow", "2.000", "s", "-", "1.50"]


def test_machine_header_names_no_host_or_path():
    header = machine_header()
    text = json.dumps(header)
    assert header["cpu"]["cores"] >= 1
    assert header["packages"]["torch"]
    assert header["memory_gib"] > 0
    if len(platform.node()) > 3:
        assert platform.node() not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path(__file__).parents[2]) not in text


def test_slug_is_a_file_name():
    assert machine_slug({"cpu": MACHINE["cpu"]}) == "cpu-amd-epyc-9v74-f25m17-2c"
    assert machine_slug().startswith("cpu-")


def test_keep_says_what_moved_and_replaces_the_file(tmp_path, capsys):
    path = tmp_path / "cpu.json"
    keep(path, results(entry("a", 1.0), entry("b", 1.0)))
    assert "no earlier" in capsys.readouterr().out
    keep(path, results(entry("a", 0.5), entry("b", 1.0)))
    out = capsys.readouterr().out
    assert "faster: a 1.000 s -> 500.00 ms (0.50x)" in out
    assert "of 2 rows 0 slower, 1 faster, 1 within noise" in out
    assert read_results(path)["rows"][0]["median_seconds"] == 0.5
    keep(path, results(entry("a", 0.5), entry("b", 1.0), size="small"))
    assert "not compared" in capsys.readouterr().out
