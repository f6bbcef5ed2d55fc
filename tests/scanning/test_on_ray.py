"""A scan on a real Ray of this machine: the file of one process, whoever dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.errors import BackendUnavailableError, UsageError

from support import long_scans
from support.long_scans import end, environment, finished, free_port, journal_of, start, wait_for_modules

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


# --- a cluster of two nodes --------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """Nodes of one CPU: the head here, and one that may join from a network namespace of its own."""

    mark: str
    variables: dict[str, str]
    here: str
    there: str
    namespace: str
    link: str
    port: int

    def start(self, *more: str, namespace: str = "") -> None:
        launcher = ["ip", "netns", "exec", namespace] if namespace else []
        options = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=80000000"]
        done = subprocess.run(
            [*launcher, sys.executable, "-m", "ray.scripts.scripts", "start", *more, *options],
            env=environment(
                **self.variables,
                RAY_AUTH_MODE="token",
                RAY_health_check_initial_delay_ms="1000",
                RAY_health_check_period_ms="1000",
                RAY_health_check_timeout_ms="3000",
                RAY_health_check_failure_threshold="5",
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def join(self) -> None:
        """A second node, on the other side of the link."""
        self.start(f"--address={self.here}:{self.port}", f"--node-ip-address={self.there}", namespace=self.namespace)

    def workers(self, *, far: bool) -> list[int]:
        """Workers that score, in the namespace or not."""
        own = os.stat("/proc/self/ns/net").st_ino
        found = [(pid, os.stat(f"/proc/{pid}/ns/net").st_ino != own) for pid in workers_of(self.mark)]
        return [pid for pid, is_far in found if is_far == far]

    def cut(self) -> None:
        """Unplug the cable."""
        ip("link", "set", self.link, "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    number = os.getpid() % 60000
    here, there = f"10.{77 + number // 30000}.{number % 250}.1", f"10.{77 + number // 30000}.{number % 250}.2"
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    variables = {"SCAN_OF_TEST": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    made = Cluster(str(tmp_path), variables, here, there, f"sf{number}", f"sf{number}", free_port())
    try:
        ip("netns", "add", made.namespace)
        ip("link", "add", made.link, "type", "veth", "peer", "name", "far", "netns", made.namespace)
    except (OSError, subprocess.CalledProcessError) as error:
        subprocess.run(["ip", "netns", "del", made.namespace], check=False, capture_output=True)
        pytest.skip(f"needs network namespaces: {getattr(error, 'stderr', error)}")
    try:
        ip("addr", "add", f"{here}/24", "dev", made.link)
        ip("link", "set", made.link, "up")
        for words in (f"addr add {there}/24 dev far", "link set far up", "link set lo up"):
            ip("-n", made.namespace, *words.split())
        made.start("--head", f"--node-ip-address={here}", f"--port={made.port}", "--include-dashboard=false")
        yield made
    finally:
        for pid in processes_of(made.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ip("netns", "del", made.namespace)  # and the link with it
        wait_until_gone(made.mark)


@pytest.mark.slow
@needs_ray
def test_a_node_that_joins_is_used_and_one_that_is_cut_off_costs_its_chunks_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Workers are stopped where that decides who scores what: no part of it hangs on speed."""
    model, out = tmp_path / "model", tmp_path / "scan.json"
    write_checkpoint(model, like="llama-3-8b", layers=4, scale=8, embeddings=False)
    address = f"{cluster.here}:{cluster.port}"
    process = start(model, out, "--quiet", "--ray", address, variables=cluster.variables)
    assert wait_for_modules(process, journal_of(out), 1), process.communicate()
    near = await_worker(process, cluster, far=False)
    os.kill(near, signal.SIGSTOP)
    before = len(finished(journal_of(out)))
    cluster.join()
    assert wait_for_modules(process, journal_of(out), before + 2), "the node that joined has scored"
    far = await_worker(process, cluster, far=True)
    os.kill(far, signal.SIGSTOP)  # with a chunk in hand that nobody else has
    cluster.cut()
    os.kill(near, signal.SIGCONT)
    returned, stdout, _ = end(process)
    assert (returned, stdout) == (0, "")
    scan = sf.scan(model, method="svd", threads=1, out=tmp_path / "alone.json")
    assert len(scan.modules) == 28
    assert out.read_bytes() == (tmp_path / "alone.json").read_bytes()


def await_worker(process: subprocess.Popen[str], cluster: Cluster, *, far: bool) -> int:
    while not (workers := cluster.workers(far=far)):
        assert process.poll() is None, "the scan was over before a worker could be stopped; a slower model"
        time.sleep(0.005)
    return workers[0]


def test_without_ray_the_error_names_the_extra(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'spectrum-fast\[ray\]'"):
        sf.scan(llama, ray="local")


def test_a_live_model_and_a_part_are_refused(llama: Path) -> None:
    import torch

    with pytest.raises(UsageError, match="ray: expected a checkpoint in files, found a live model"):
        sf.scan(torch.nn.Linear(3, 4), ray="local")
