"""Progress for people and for programs."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.report.json_progress import JsonMeter, format_step, open_json_meter
from spectrum_fast.use.report.progress import ScanMeter, format_left, format_line


def step(done: int, **more) -> ScanProgress:
    return ScanProgress("x" if done else "", done, 10, done * 10**9, 10 * 10**9, 2.0 * done, **more)


def test_reading_bounds_where_scoring_waits() -> None:
    assert step(0).bound is None
    assert step(1, wait_seconds=0.1, compute_seconds=0.9).bound == "read"
    assert step(1, wait_seconds=0.09, compute_seconds=0.91).bound == "compute"


def test_time_left_follows_what_bounds_it() -> None:
    """Half the bytes are a quarter of the work: the other half takes as long, or three times as long."""
    work = {"done_work": 25.0, "total_work": 100.0}
    assert step(5, wait_seconds=1.0, compute_seconds=1.0, **work).left_seconds == pytest.approx(10.0)
    assert step(5, wait_seconds=0.0, compute_seconds=1.0, **work).left_seconds == pytest.approx(30.0)


def test_what_was_resumed_makes_no_speed() -> None:
    resumed = {"resumed": 4, "resumed_bytes": 4 * 10**9}
    now = step(5, **resumed)
    assert now.bytes_per_second == pytest.approx(1e9 / 10)
    assert now.left_seconds == pytest.approx(50.0)
    assert step(4, **resumed).bytes_per_second is None
    assert step(4, **resumed).left_seconds is None


def test_lines_for_people() -> None:
    assert format_line(step(5, compute_seconds=9.0, processes=4)) == (
        "scanned 5/10 modules, 5 GB of 10 GB in 10 s, 500 MB/s, about 10 s left, bound by computing, 4 processes"
    )
    assert [format_left(seconds) for seconds in (0.4, 99.4, 100, 5999, 86400)] == [
        "0 s",
        "99 s",
        "1 min 40 s",
        "99 min 59 s",
        "24 h 00 min",
    ]


def test_a_resumed_scan_says_so_at_both_ends() -> None:
    stream = io.StringIO()
    with ScanMeter(Console(file=stream, width=200)) as meter:
        meter(ScanProgress("", 4, 10, 4, 10, 0.1, resumed=4, resumed_bytes=4))
        meter(ScanProgress("x", 10, 10, 10, 10, 3.0, resumed=4, resumed_bytes=4))
    assert stream.getvalue().splitlines() == [
        "going on where an interrupted scan was: 4 of 10 modules are finished, 4 B of 10 B",
        "scanned 10 modules (4 of them in an earlier sitting), 10 B in 3.0 s",
    ]


def test_lines_for_programs_are_those_that_are_documented(tmp_path: Path) -> None:
    from spectrum_fast.use.report import json_progress

    documented = [word for word in (json_progress.__doc__ or "").split('"') if word and word in format_step(step(1))]
    entry = json.loads(format_step(step(1, failed=1)))
    assert [key for key in dict.fromkeys(documented) if key in entry] == list(entry)
    model = write_checkpoint(tmp_path / "model", like="tiny", layers=2).path
    with open_json_meter(str(tmp_path / "progress"), io.StringIO()) as meter:
        scan = sf.scan(model, progress=meter)
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    assert (first["module"], first["done"], first["left_seconds"], first["bound"]) == ("", 0, None, None)
    assert last["done"] == last["total"] == len(scan.modules)
    assert last["done_bytes"] == last["total_bytes"] == scan.provenance["bytes_read"]
    assert (last["left_seconds"], last["failed"], last["processes"]) == (0.0, 0, 1)
    assert last["bound"] in ("read", "compute")
    assert last["compute_seconds"] > 0


def test_lines_are_few_but_the_first_and_the_last_are_there() -> None:
    stream = io.StringIO()
    meter = JsonMeter(stream)
    for done in range(11):
        meter(step(done))
    written = [json.loads(line)["done"] for line in stream.getvalue().splitlines()]
    assert (written[0], written[-1]) == (0, 10)
    assert len(written) < 5


def test_a_reader_that_goes_away_ends_the_lines_and_not_the_scan() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    meter = JsonMeter(os.fdopen(writing, "w"))
    meter(step(0))
    meter(step(10))


def test_where_lines_go(tmp_path: Path) -> None:
    stderr = io.StringIO()
    for target in ("", "-"):
        with open_json_meter(target, stderr) as meter:
            meter(step(0))
        assert len(stderr.getvalue().splitlines()) == len(target)
    (tmp_path / "log").write_text("kept\n")
    with open_json_meter(str(tmp_path / "log"), stderr) as meter:
        meter(step(0))
    assert (tmp_path / "log").read_text().splitlines()[0] == "kept"
    with (
        pytest.raises(UsageError, match=r"--json-progress .*: cannot be written: Is a directory"),
        open_json_meter(str(tmp_path), stderr),
    ):
        pass


@pytest.mark.parametrize(("columns", "bound"), [(80, ""), (100, "computing "), (160, "computing ")])
def test_the_line_is_used_and_keeps_the_layer_in_any_width(columns: int, bound: str) -> None:
    stream = io.StringIO()
    terminal = Console(file=stream, width=columns, force_terminal=True, color_system=None)
    with ScanMeter(terminal) as meter:
        name = "model.layers.12.self_attn.q_proj"
        times = {"read_seconds": 9.0, "wait_seconds": 1.0, "compute_seconds": 90.0}
        meter(ScanProgress(name, 123, 291, 8_000_000_000, 16_060_522_496, 95.0, **times))
    lines = [line.split("\n")[0] for line in stream.getvalue().split("\x1b[2K") if line.startswith("123/291")]
    shown = [line for line in lines if f"8.0/16.1 GB 84.2 MB/s 96 s left {bound}12.self_attn.q_proj" in line]
    assert shown, lines
    assert len(shown[0]) == columns
    assert shown[0].index("8.0/16.1") > len("123/291 ") + columns // 12  # and a bar
