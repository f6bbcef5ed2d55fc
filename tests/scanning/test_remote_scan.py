"""A scan over a network finds what the scan of the same files on disk finds, however often the network breaks."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.storage.remote_file import OPENING_BYTES
from spectrum_fast.scanning import ScanProgress

from support.file_server import Fault, FileServer, Request, forward_to
from support.hub_server import TOKEN, serve_hub
from support.s3_server import SECRET, serve_s3, use_s3

pytest.importorskip("obstore")

SPECIAL = {
    "copy.q_proj.weight": torch.ones(40, 50),
    "broken.q_proj.weight": torch.full((30, 20), float("nan")),
    "codes.q_proj.weight": torch.ones(30, 20, dtype=torch.int64),
    "norm.weight": torch.ones(30),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in shards with an index, one more of them with a copy, a failure, a refusal and a vector."""
    folder = tmp_path_factory.mktemp("remote") / "tiny"
    write_checkpoint(folder, like="llama-3-8b", layers=2, scale=16, shard_gib=0.001, embeddings=False)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    special = {**SPECIAL, "original.q_proj.weight": SPECIAL["copy.q_proj.weight"].clone()}
    save_file(special, folder / "special.safetensors")
    index["weight_map"] |= dict.fromkeys(special, "special.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def local(model: Path) -> sf.Scan:
    scan = sf.scan(model)
    assert len(scan.modules) == 16
    assert {failure.kind for failure in scan.failures} == {"values", "unsupported"}
    assert scan.module("original.q_proj").note.endswith("the same bytes as copy.q_proj, read once")
    return scan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PART_MIB", "0.05")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_DELAY_SECONDS", "0.02")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "0.5")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "20")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def regular_faults(kinds: list[Fault], every: int) -> tuple[Callable[[Request], Fault | None], list[str]]:
    """Spoil every so-manieth answer, with one kind of fault after the other, at changing places of the body."""
    count = itertools.count(1)
    spent: list[str] = []

    def choose(_: Request) -> Fault | None:
        number = next(count)
        if number % every:
            return None
        fault = replace(kinds[len(spent) % len(kinds)], after=number * 7919 % 25_000)
        spent.append(fault.kind)
        return fault

    return choose, spent


FAULTS = [
    Fault("reset"),
    Fault("short"),
    Fault("stall"),
    Fault("hang"),
    Fault("drop"),
    Fault("status", status=503),
    Fault("status", status=429),
    Fault("status", status=500),
]


def assert_same(remote: sf.Scan, local: sf.Scan) -> None:
    assert remote.modules == local.modules
    assert remote.ties == local.ties
    assert remote.skipped == local.skipped
    assert [(f.name, f.kind, f.shape, f.dtype) for f in remote.failures] == [
        (f.name, f.kind, f.shape, f.dtype) for f in local.failures
    ]
    assert remote.provenance["fingerprint"] == local.provenance["fingerprint"]
    assert remote.provenance["bytes_read"] == local.provenance["bytes_read"]


def test_a_web_folder_under_faults(model, local, tmp_path):
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        assert_same(sf.scan(f"{server.url}/m"), local)
        extra = [Fault("less"), Fault("misplaced")]
        server.choose, spent = regular_faults(FAULTS + extra, 3)
        remote = sf.scan(f"http://me:{SECRET}@127.0.0.1:{server.port}/m/?signature={SECRET}")
    assert_same(remote, local)
    assert len(spent) > 20
    assert len(set(spent)) == 8
    remote.save(tmp_path / "scan.json")
    text = (tmp_path / "scan.json").read_text()
    assert f"http://127.0.0.1:{server.port}/m/" in text
    assert SECRET not in text


def test_a_bucket_under_faults(model, local, monkeypatch, tmp_path):
    with serve_s3() as endpoint, FileServer(answer=forward_to(endpoint)) as server:
        bucket = use_s3(endpoint, monkeypatch).Bucket("models")
        bucket.create()
        for path in model.iterdir():
            bucket.upload_file(str(path), f"org/tiny/{path.name}")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        server.choose, spent = regular_faults(FAULTS, 4)
        remote = sf.scan("s3://models/org/tiny")
    assert_same(remote, local)
    assert len(spent) > 10
    assert len(set(spent)) == 6
    remote.save(tmp_path / "scan.json")
    assert SECRET not in (tmp_path / "scan.json").read_text()


def test_the_command_reads_the_hub_without_storing(model, local, tmp_path):
    with serve_hub({path.name: path.read_bytes() for path in model.iterdir()}) as hub:
        hub.network.choose, spent = regular_faults(FAULTS, 3)
        arguments = ["scan", "org/name", "--no-store", "--out", str(tmp_path / "scan.json")]
        done = subprocess.run(
            [sys.executable, "-m", "spectrum_fast", *arguments],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1, done.stderr  # the two failures of the model
    assert spent
    assert_same(sf.load_scan(tmp_path / "scan.json"), local)
    assert TOKEN not in done.stdout + done.stderr + (tmp_path / "scan.json").read_text()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_dry_run_of_a_hub_id_reads_little_and_stores_nothing(model, tmp_path):
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    with serve_hub(files) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "spectrum_fast", "scan", "org/name", "--dry-run"],
            env=hub.environment(tmp_path / "home") | {"COLUMNS": "300"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "matrices to score" in done.stdout.splitlines()[0]
    assert "time: about" in done.stdout.splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 200]


def test_a_server_that_stays_down_ends_the_command_with_one_line_and_loses_nothing(model, local, monkeypatch, tmp_path):
    out = tmp_path / "scan.json"
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "3")
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        opened = open_checkpoint(f"{server.url}/m")
        matrices = [ref for ref in opened.tensors if len(ref.shape) == 2 and ref.begin > OPENING_BYTES]
        late = [ref for ref in matrices if ref.file.name.startswith("model-")][-1]
        server.choose = lambda request: (
            Fault("status", status=503)
            if request.path.endswith(late.file.name)
            and request.range
            and request.range[1] > late.begin
            and request.range[1] - request.range[0] > 4096  # blocks that are compared come through
            else None
        )
        done = subprocess.run(
            [sys.executable, "-m", "spectrum_fast", "scan", f"{server.url}/m", "--out", str(out)],
            capture_output=True,
            text=True,
        )
        assert not out.exists()
        server.choose = lambda _: None
        steps: list[int] = []
        resumed = sf.scan(f"{server.url}/m", out=out, progress=lambda step: steps.append(step.done))
    assert done.returncode == 2
    words = "".join(done.stderr.split())
    names = [ref.name for ref in opened.tensors if ref.file == late.file]
    assert any(f"error:tensor'{name}'in" in words for name in names)
    for part in (late.file.name, "3attempts", "503ServiceUnavailable", "copythecheckpointhere"):
        assert part in words, part
    assert 0 < steps[0] < steps[-1]
    assert_same(resumed, local)
    assert_same(sf.load_scan(out), local)


def test_ctrl_c_does_not_wait_for_a_server_that_hangs(model, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "60")
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        hung = threading.Event()

        def hang(request: Request) -> Fault | None:
            if request.range and request.range[0] > OPENING_BYTES and request.range[1] - request.range[0] > 4096:
                hung.set()
                return Fault("hang")
            return None

        server.choose = hang
        command = [
            sys.executable,
            "-m",
            "spectrum_fast",
            "scan",
            f"{server.url}/m",
            "-q",
            "--out",
            str(tmp_path / "scan.json"),
        ]
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may leave it ignored
        ) as scan:
            assert hung.wait(60)
            time.sleep(0.3)
            scan.send_signal(signal.SIGINT)
            _, words = scan.communicate(timeout=50)
    assert (scan.returncode, words.startswith("interrupted")) == (130, True)


def test_a_file_replaced_during_a_scan_is_refused(model):
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        shard = "/m/special.safetensors"

        def replace_it(progress: ScanProgress) -> None:
            if progress.done == 0:  # headers are read, tensors are not
                server.objects[shard] = bytes(len(server.objects[shard]))

        with pytest.raises(CheckpointError, match=r"special\.safetensors.*replaced"):
            sf.scan(f"{server.url}/m", progress=replace_it)
