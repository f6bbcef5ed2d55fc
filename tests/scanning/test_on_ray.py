"""A scan on a real Ray of this machine: the file of one process, whoever dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import spectrum_fast as sf
from spectrum_fast.errors import BackendUnavailableError, UsageError
from spectrum_fast.measure.scoring.scan_file import format_scan

from support import long_scans
from support.long_scans import end, finished, journal_of, start, wait_for_modules

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray alone takes half a minute to start on a busy machine."""
    monkeypatch.setattr(long_scans, "LIMIT_SECONDS", 600)


def processes_of(mark: str) -> list[int]:
    """Processes that carry this variable in their environment, this one's children and theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SCAN_OF_TEST={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def workers_of(mark: str) -> list[int]:
    """Ray's workers among them that score at this moment."""
    return [pid for pid in processes_of(mark) if b"ray::_score_chunk" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until_gone(mark: str) -> None:
    deadline = time.monotonic() + long_scans.LIMIT_SECONDS
    while processes_of(mark):
        assert time.monotonic() < deadline, "Ray's processes outlive the scan"
        time.sleep(0.1)


@pytest.mark.slow
@needs_ray
def test_the_scan_on_ray_is_that_of_one_process(llama: Path) -> None:
    steps: list[sf.scanning.ScanProgress] = []
    scan = sf.scan(llama, ray="local", progress=steps.append)
    assert format_scan(scan) == format_scan(sf.scan(llama, threads=1))
    assert [step.done for step in steps] == list(range(17))
    assert 1 <= max(step.processes for step in steps) <= len(os.sched_getaffinity(0))


@pytest.mark.slow
@needs_ray
def test_a_killed_worker_costs_its_chunk_alone(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    out, mark = tmp_path / "scan.json", str(tmp_path)
    process = start(deep, out, "--quiet", "--ray", "local", variables={"SCAN_OF_TEST": mark})
    assert wait_for_modules(process, journal_of(out), 1)
    while not (workers := workers_of(mark)):
        assert process.poll() is None, "the scan was over before a worker could be killed; a slower model"
        time.sleep(0.005)
    os.kill(workers[0], signal.SIGKILL)
    returned, stdout, _ = end(process)  # Ray says on stderr what happened to its worker
    assert (returned, stdout) == (0, "")
    assert out.read_bytes() == uninterrupted
    assert not journal_of(out).exists()
    wait_until_gone(mark)


@pytest.mark.slow
@needs_ray
def test_a_killed_driver_goes_on_from_its_journal(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    out, mark = tmp_path / "scan.json", str(tmp_path)
    process = start(deep, out, "--quiet", "--ray", "local", variables={"SCAN_OF_TEST": mark})
    assert wait_for_modules(process, journal_of(out), 2)
    process.kill()
    assert end(process)[0] == -signal.SIGKILL, "the scan was over before it could be killed; a slower model"
    wait_until_gone(mark)
    before = finished(journal_of(out))
    assert len(before) >= 2
    again = start(deep, out, "--quiet", "--ray", "local", "--json-progress", tmp_path / "progress")
    assert end(again) == (0, "", "")
    assert f'"resumed": {len(before)}' in (tmp_path / "progress").read_text().splitlines()[0]
    assert out.read_bytes() == uninterrupted


@pytest.mark.slow
@needs_ray
def test_an_interrupted_driver_says_what_is_safe(deep: Path, tmp_path: Path) -> None:
    out, mark = tmp_path / "scan.json", str(tmp_path)
    process = start(deep, out, "--quiet", "--ray", "local", variables={"SCAN_OF_TEST": mark})
    assert wait_for_modules(process, journal_of(out), 1)
    process.send_signal(signal.SIGTERM)
    returned, stdout, stderr = end(process)
    assert (returned, stdout) == (143, "")
    assert "finished modules are safe in" in stderr
    wait_until_gone(mark)


def test_without_ray_the_error_names_the_extra(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'spectrum-fast\[ray\]'"):
        sf.scan(llama, ray="local")


def test_a_live_model_and_a_part_are_refused(llama: Path) -> None:
    import torch

    with pytest.raises(UsageError, match="ray: expected a checkpoint in files, found a live model"):
        sf.scan(torch.nn.Linear(3, 4), ray="local")
