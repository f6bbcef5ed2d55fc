"""The GPU machine's script: every test that only a GPU can run, limits that hold, results that survive being cut."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from bench.gpu import call
from bench.gpu.call import CALLS, Step, run_call
from bench.gpu.record import Record
from bench.results_file import read_results

ROOT = Path(__file__).parents[2]
OF_THE_EMULATION = "tests/emulated_cuda/"


def test_no_test_of_a_gpu_is_left_out() -> None:
    run = {found for pattern in call.TESTS for found in ROOT.glob(pattern)}
    assert len(run) >= len(call.TESTS), "a path that is not there"
    marked = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.gpu\b|\bWITH_GPU\b|\bon_gpu\b", path.read_text(encoding="utf-8"))
    ]
    assert len(marked) > 10
    left_out = [
        path
        for path in (one.relative_to(ROOT) for one in marked)
        if not {ROOT / path, *(ROOT / above for above in path.parents)} & run
        and not path.as_posix().startswith(OF_THE_EMULATION)
    ]
    assert [path.as_posix() for path in left_out if ROOT / path != Path(__file__)] == []


def test_the_calls_are_short_and_their_first_steps_leave_time() -> None:
    assert {name: limit for name, (limit, _) in CALLS.items()} == {"first": 280, "second": 270, "third": 240}
    for limit, steps in CALLS.values():
        assert sum(step.seconds for step in steps if step.seconds < limit) <= limit
        assert [step.seconds < limit for step in steps[:-1]] == [True] * (len(steps) - 1)


def python(code: str) -> tuple[str, ...]:
    return ("timeit", "-n1", "-r1", code)


def test_a_step_that_fails_or_hangs_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (
        Step("hangs", 2, python("print('began', flush=True); import time; time.sleep(600)")),
        Step("fails", 60, python("raise ValueError")),
        Step("not there", 60, python("pass"), ("no-such-profiler",)),
        Step("works", 60, python(f"open({str(tmp_path / 'done')!r}, 'w')")),
    )
    monkeypatch.setitem(CALLS, "first", (600, steps))
    assert run_call("first", tmp_path) == ["hangs", "fails"]
    log = (tmp_path / "gpu-first.log").read_text(encoding="utf-8")
    outcomes = dict(re.findall(r"^== ([a-z ]+): (.*), \d+ s of the call so far$", log, re.MULTILINE))
    assert outcomes["hangs"] == "stopped at its limit of 2 s"
    assert outcomes["fails"] == "failed with exit code 1"
    assert outcomes["not there"] == "left out: no-such-profiler is not installed"
    assert outcomes["works"] == "done"
    assert (tmp_path / "done").exists()


def test_a_call_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (Step("long", 600, python("import time; time.sleep(600)")), Step("late", 60, python("pass")))
    monkeypatch.setitem(CALLS, "first", (600, steps))
    assert run_call("first", tmp_path, scale=0.005) == ["long"]
    assert "== late: left out: no time is left" in (tmp_path / "gpu-first.log").read_text(encoding="utf-8")


def test_steps_add_to_one_file_whatever_became_of_the_last(tmp_path: Path) -> None:
    path, asked = tmp_path / "gpu-first.json", []
    row = {"name": "a", "group": "gram", "median_seconds": 1.0, "rounds": 1, "info": {}}
    Record(path).add(row)
    (tmp_path / "gpu-first.part").write_text('{"schema"', encoding="utf-8")  # who wrote this was killed
    second = Record(path)
    second.add(row | {"name": "b"})
    second.add(row | {"median_seconds": 2.0})
    second.note("failures", "c: no result")
    assert second.known("score of 3x4", lambda: asked.append(None) or 0.5) == 0.5
    assert Record(path).known("score of 3x4", lambda: asked.append(None) or 0.5) == 0.5
    assert len(asked) == 1
    found = read_results(path)
    assert [(one["name"], one["median_seconds"]) for one in found["rows"]] == [("b", 1.0), ("a", 2.0)]
    assert found["machine"]["git"] is not None
    assert "FAILED  c: no result" in Record(path).text()
    assert Record(None).rows == []


def test_a_commit_that_is_passed_stands_where_no_git_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_git(*_: object) -> str:
        raise OSError

    monkeypatch.setattr("bench.machine._git", no_git)
    monkeypatch.setenv("COMMIT", "1234567")
    assert Record(None).results["machine"]["git"] == {"commit": "1234567", "dirty": None}
    monkeypatch.delenv("COMMIT")
    assert Record(None).results["machine"]["git"] is None


def test_the_script_wants_to_know_the_commit(tmp_path: Path) -> None:
    script = tmp_path / "bench" / "gpu.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "bench" / "gpu.sh").read_bytes())
    environment = {name: value for name, value in os.environ.items() if name not in ("COMMIT", "GIT_DIR")}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pass COMMIT=hash" in done.stderr


ON_THE_EMULATED_DEVICE = {
    "LAUNCHER": "emulated_cuda",
    "EMULATED_CUDA": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(ROOT / "tests"),
    "PYTHON": str(call.sys.executable),
}
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: no need to rehearse")


def rehearse(out: Path, scale: float, *calls: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ON_THE_EMULATED_DEVICE, "OUT": str(out), "SCALE": str(scale)}
    command = [str(ROOT / "bench" / "gpu.sh"), *calls, "--rehearse"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@no_gpu
def test_all_three_calls_on_the_emulated_device(tmp_path: Path) -> None:
    """Every step, at toy sizes; limits are long, since this device computes on the CPU."""
    done = rehearse(tmp_path, 20)
    logs = "".join((tmp_path / f"gpu-{name}.log").read_text(encoding="utf-8") for name in CALLS)
    assert done.returncode == 0, done.stderr[-3000:] + logs[-6000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"gpu-{name}.{kind}" for name in CALLS for kind in ("json", "log")
    )
    for name, (_, steps) in CALLS.items():
        log = (tmp_path / f"gpu-{name}.log").read_text(encoding="utf-8")
        for step in steps:
            assert re.search(rf"^== {step.name}: (done|left out: .* is not installed)", log, re.MULTILINE), step.name
        found = read_results(tmp_path / f"gpu-{name}.json")
        assert found["size"] == "rehearsal"
        assert found["rows"]
        assert found["failures"] == []
        assert found["machine"]["git"]["commit"]
    names = {row["name"].partition("[")[0] for row in read_results(tmp_path / "gpu-first.json")["rows"]}
    assert names >= {"model", "profile", "gram"}
    scans = [row for row in read_results(tmp_path / "gpu-second.json")["rows"] if row["group"] == "scan"]
    assert [row["info"]["matrices"] for row in scans] == [14, 14, 14]


@pytest.mark.slow
@no_gpu
def test_where_limits_strike_the_log_says_at_which_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = tmp_path / "test_that_hangs.py"
    test.write_text("import time\ndef test_it_hangs():\n    time.sleep(600)\n", encoding="utf-8")
    monkeypatch.setitem(CALLS, "first", (600, (Step("tests", 45, ("pytest", "-v", str(test))),)))
    assert run_call("first", tmp_path) == ["tests"]
    log = (tmp_path / "gpu-first.log").read_text(encoding="utf-8")
    assert "test_that_hangs.py::test_it_hangs" in log
