"""A scan shared by processes: the same file as by one, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.errors import RankError
from spectrum_fast.measure.scoring.scan_file import format_scan
from spectrum_fast.scanning import coordinator as coordinating
from spectrum_fast.scanning.exchange import Exchange
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.rank_work import Heart
from spectrum_fast.scanning.ranks import Rank, find_rank
from spectrum_fast.scanning.shared import follow_scan, lead_scan

from support.long_scans import command, end, environment, finished, free_port, journal_of, start, wait_for_modules


def variables(rank: int, count: int, port: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def start_ranks(model: Path, out: Path, count: int, *more: object) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [start(model, out, "--quiet", *more, variables=variables(rank, count, port)) for rank in range(count)]


# --- processes of their own --------------------------------------------------------------------------------------


def test_two_processes_write_the_file_of_one(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    out, timing = tmp_path / "scan.json", tmp_path / "timing.json"
    for process in start_ranks(deep, out, 2, "--timing", timing):
        assert end(process) == (0, "", "")
    assert out.read_bytes() == uninterrupted
    run = json.loads(timing.read_text())
    assert (run["processes"], run["lost_processes"], run["threads"]) == (2, 0, 1)
    assert not journal_of(out).exists()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_work_of_a_killed_process_is_done_by_others(
    deep: Path, uninterrupted: bytes, tmp_path: Path, count: int
) -> None:
    out, timing = tmp_path / "scan.json", tmp_path / "timing.json"
    processes = start_ranks(deep, out, count, "--timing", timing)
    victim = processes.pop()
    assert wait_for_modules(processes[0], journal_of(out), 1)
    wait_until_at_work(victim, deep / "model.safetensors", processes[0])
    victim.kill()
    end(victim)
    returned, stdout, stderr = end(processes[0])
    assert (returned, stdout) == (0, "")
    assert stderr in ("", f"warning: rank {count - 1} has given no sign of life for 10 s; others take over its work\n")
    for process in processes[1:]:
        assert end(process) == (0, "", "")
    assert out.read_bytes() == uninterrupted


def wait_until_at_work(process: subprocess.Popen[str], file: Path, leader: subprocess.Popen[str]) -> None:
    """Until the process has the checkpoint open, or the scan is over without it."""
    while leader.poll() is None:
        try:
            if any(link.readlink() == file for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                return
        except OSError:
            continue
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_rank_0_ends_the_others_and_its_journal_goes_on(
    deep: Path, uninterrupted: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "scan.json"
    port = free_port()
    follower = start(deep, out, "--quiet", variables=variables(1, 2, port))
    while b"libtorch_cpu" not in Path(f"/proc/{follower.pid}/maps").read_bytes():
        time.sleep(0.01)
    time.sleep(2)  # it looks for the store by now, or soon; the leader takes its time to start as well
    leader = start(deep, out, "--quiet", variables=variables(0, 2, port))
    assert wait_for_modules(leader, journal_of(out), 2)
    wait_until_at_work(follower, deep / "model.safetensors", leader)
    leader.kill()
    assert end(leader)[0] == -signal.SIGKILL, "the scan was over before the leader could be killed; a slower model"
    returned, stdout, stderr = end(follower)
    assert (returned, stdout) == (2, "")
    assert "lost touch with the store of this scan" in stderr
    assert "Run the same command again: the scan goes on from rank 0's journal" in stderr
    assert len(stderr.splitlines()) == 1
    before = finished(journal_of(out))
    for process in start_ranks(deep, out, 2):
        assert end(process) == (0, "", "")
    assert len(before) >= 2
    assert out.read_bytes() == uninterrupted


@pytest.mark.slow
def test_torchrun_starts_all_anew_and_the_scan_goes_on(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    """Torchrun ends all ranks when one dies; with --max-restarts it starts them again."""
    out = tmp_path / "scan.json"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    launcher += ["--master-port", str(free_port())]
    process = subprocess.Popen(
        [*launcher, *command(deep, out)[1:], "--json-progress", str(tmp_path / "progress")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert wait_for_modules(process, journal_of(out), 2)
    (victim,) = (pid for pid in children_of(process.pid) if b"RANK=1" in variables_of(pid))
    os.kill(victim, signal.SIGKILL)
    returned, _, stderr = end(process)
    assert returned == 0, stderr
    assert out.read_bytes() == uninterrupted
    steps = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    beginnings = [step for step in steps if not step["module"]]
    assert len(beginnings) == 2
    assert beginnings[1]["resumed"] >= 2
    assert {step["processes"] for step in steps} >= {2}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def variables_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


# --- the parts, in this process ----------------------------------------------------------------------------------


@pytest.fixture
def ranks() -> list[Rank]:
    port = free_port()
    return [Rank(rank, 3, rank, 3, "127.0.0.1", port, hosts_store=rank == 0) for rank in range(3)]


def options() -> ScanOptions:
    return ScanOptions(threads=1)


def run_together(leader: Exchange, followers: list[Exchange], model: Path, model_of_followers: Path | None = None):
    """The scan of rank 0, and what the others raised."""
    problems: list[Exception] = []

    def follow(exchange: Exchange) -> None:
        try:
            follow_scan(exchange, model_of_followers or model, options())
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=follow, args=(exchange,)) for exchange in followers]
    for thread in threads:
        thread.start()
    try:
        scan = lead_scan(leader, model, options())
    finally:
        for thread in threads:
            thread.join()
    return scan, problems


def test_ranks_in_threads_give_the_scan_of_one(llama: Path, ranks: list[Rank]) -> None:
    leader, *followers = map(Exchange, ranks)
    scan, problems = run_together(leader, followers, llama)
    assert not problems
    assert format_scan(scan) == format_scan(sf.scan(llama, threads=1))
    assert scan.run["processes"] == 3


def test_a_rank_that_takes_work_and_falls_silent_is_replaced(
    llama: Path, ranks: list[Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinating, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr("spectrum_fast.scanning.rank_work.BEAT_SECONDS", 0.05)
    leader, silent, mute = map(Exchange, ranks)
    took = []

    def take_and_fall_silent() -> None:
        for exchange in (silent, mute):
            exchange.beat(1)
            exchange.tell({"here": "there"})
        while len(took) < 1:
            took.extend(filter(None, [silent.take()]))
        while len(took) < 2:  # this one dies before it can say what it took
            took.extend(filter(None, [mute._pop(f"{mute._attempt}/work")]))

    thread = threading.Thread(target=take_and_fall_silent)
    thread.start()
    words: list[str] = []
    scan = lead_scan(leader, llama, options(), say=words.append)
    thread.join()
    assert len(took) == 2
    assert format_scan(scan) == format_scan(sf.scan(llama, threads=1))
    assert scan.run["lost_processes"] == 2
    assert sorted(words) == [f"rank {n} has given no sign of life for 0 s; others take over its work" for n in (1, 2)]


def test_ranks_that_see_another_checkpoint_stop_the_scan(llama: Path, ranks: list[Rank], tmp_path: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    leader, *followers = map(Exchange, ranks)
    with pytest.raises(
        RankError, match=r"rank [12] on .*: expected the same scan as rank 0's, found a difference in fi"
    ):
        run_together(leader, followers, llama, tmp_path)


def test_a_rank_without_a_store_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrum_fast.scanning.exchange.CONNECT_SECONDS", 0.5)
    port = free_port()
    with pytest.raises(
        RankError, match=rf"rank 1 cannot reach the store of this scan at 127\.0\.0\.1:{port}; is rank 0"
    ):
        Exchange(Rank(1, 2, 1, 2, "127.0.0.1", port, hosts_store=False))


def test_a_taken_port_is_said_so(ranks: list[Rank]) -> None:
    held = Exchange(ranks[0])
    with pytest.raises(RankError, match=r"rank 0 cannot start the store of this scan at .*Choose another MASTER_PORT"):
        Exchange(ranks[0])
    del held


def test_an_interrupted_leader_tells_the_others(llama: Path, ranks: list[Rank]) -> None:
    leader, follower, _ = map(Exchange, ranks)
    problems: list[Exception] = []

    def follow() -> None:
        with pytest.raises(RankError) as caught:
            follow_scan(follower, llama, options())
        problems.append(caught.value)

    def interrupt(step: sf.scanning.ScanProgress) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    thread = threading.Thread(target=follow)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        lead_scan(leader, llama, options(), progress=interrupt)
    thread.join()
    assert "rank 0 stopped the scan" in str(problems[0])


def test_a_heart_beats_while_the_main_thread_works(ranks: list[Rank], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrum_fast.scanning.rank_work.BEAT_SECONDS", 0.01)
    exchange = Exchange(ranks[0])
    with Heart(exchange):
        deadline = time.monotonic() + 20
        while exchange.beats([0]) in ([b"0"], [b"1"]) and time.monotonic() < deadline:
            sum(range(10000))
    assert int(exchange.beats([0])[0]) >= 2
    assert [exchange.told() for _ in range(3)][1:] == [{"rank": 0, "attempt": 0, "left": True}, None]


TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_the_environment_of_torchrun_is_understood() -> None:
    assert find_rank(TORCHRUN) == Rank(3, 8, 1, 2, "node0", 29500, hosts_store=False, run="none", attempt=2)
    assert find_rank({**TORCHRUN, "RANK": "0"}).hosts_store is False  # type: ignore[union-attr]


def test_a_plain_environment_is_understood() -> None:
    plain = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "::1", "MASTER_PORT": "1234"}
    assert find_rank(plain) == Rank(0, 4, 0, 4, "::1", 1234, hosts_store=True)
    assert find_rank({**plain, "RANK": "3", "SLURM_NTASKS_PER_NODE": "2"}).local == 1  # type: ignore[union-attr]
    assert find_rank({}) is None
    assert find_rank({**TORCHRUN, "WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": ""}, "RANK is not set; start them with torchrun"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT: expected a whole number in the environment, found 'http'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number"),
        ({"RANK": "8"}, r"RANK: expected a number from 0 to 7 \(WORLD_SIZE is 8\), found 8"),
    ],
)
def test_half_an_environment_is_refused(changes: Mapping[str, str], message: str) -> None:
    with pytest.raises(RankError, match=message):
        find_rank({**TORCHRUN, **changes})


def test_signals_are_left_as_they_were() -> None:
    from spectrum_fast.use.cli.interrupts import terminable

    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
