"""A scan in parts: merged, it is the file of one process, byte for byte, whatever happened to the parts on the way."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.errors import JournalError, PartsError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning import merge as merging
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.merge import merge_parts, merge_when_made
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part, parse_part, scan_part
from spectrum_fast.use.cli.app import app

from support.file_server import FileServer
from support.long_scans import command, end, environment, finished, free_port, start, wait_for_modules


def make_part(
    model: Path, out: Path, part: Part, progress: Callable[[sf.scanning.ScanProgress], None] | None = None, **options
) -> Ledger:
    with Journal(part.path(out)) as journal:
        return scan_part(model, ScanOptions(threads=1, **options), part, journal, progress)


def make_parts(model: Path, out: Path, count: int, **options) -> list[Path]:
    parts = [Part(number, count) for number in range(count)]
    for part in parts:
        make_part(model, out, part, **options)
    return [part.path(out) for part in parts]


@cache
def text_of_one(model: Path, **options) -> str:
    return format_scan(sf.scan(model, threads=1, **options))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_parts_in_any_order_are_the_scan_of_one(llama: Path, tmp_path: Path, count: int) -> None:
    paths = make_parts(llama, tmp_path / "scan.json", count)
    there = [path for path in reversed(paths) if path.exists()]
    assert len(there) == min(count, 16), "a part without weights leaves no file"
    scan, options = merge_parts(there)
    assert format_scan(scan) == text_of_one(llama)
    assert (options.threads, scan.run["processes"]) == (1, count)


def test_options_failures_and_skipped_tensors_come_through(llama: Path, tmp_path: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][1, 2] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    options = {"criterion": "mp", "exclude": ("lm_head", "*q_proj"), "include_norms": True, "top_percent": 10.0}
    scan, _ = merge_parts(make_parts(tmp_path, tmp_path / "scan.json", 2, **options))
    assert [failure.name for failure in scan.failures] == ["model.layers.0.mlp.up_proj"]
    assert format_scan(scan) == text_of_one(tmp_path, **options)


def test_a_cut_in_doubt_is_decided_when_parts_are_merged(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    W = torch.randn(96, 128, generator=generator)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4)]
    # Permuted rows: equal singular values, other rounding, so that only float64 can tell them apart or call it a tie.
    weights = {name: W[torch.randperm(96, generator=generator)].clone() for name in names}
    save_file(weights, tmp_path / "model.safetensors")
    alone = sf.scan(tmp_path, threads=1)
    assert alone.provenance["refined"]
    scan, _ = merge_parts(make_parts(tmp_path, tmp_path / "scan.json", 2))
    assert format_scan(scan) == format_scan(alone)


def test_an_interrupted_part_goes_on(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"

    def interrupt(step: sf.scanning.ScanProgress) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_part(llama, out, Part(0, 2), interrupt)
    steps: list[sf.scanning.ScanProgress] = []
    assert make_part(llama, out, Part(0, 2), steps.append).step.resumed == 2
    assert steps[0].total == steps[-1].done < 16
    make_part(llama, out, Part(1, 2))
    assert format_scan(merge_parts([Part(number, 2).path(out) for number in range(2)])[0]) == text_of_one(llama)


def test_what_is_missing_is_named_with_the_command_that_makes_it(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "the scan.json"
    first, second, third = make_parts(llama, out, 3, exclude=("*.0.*q_proj",), tolerance=1e-3)
    lines = third.read_bytes().split(b"\n")
    third.write_bytes(b"\n".join(lines[:-2]) + b"\n")
    second.unlink()
    with pytest.raises(PartsError) as caught:
        merge_parts([third, first])
    words, *commands = str(caught.value).splitlines()
    assert "part 1 is not there (" in words
    assert "part 2 lacks 1 of " in words
    monkeypatch.setattr(sys, "argv", ["spectrum-fast"])
    for line in commands:
        name, *arguments = shlex.split(line)
        assert name == "spectrum-fast"
        app(arguments, standalone_mode=False)
    paths = [Part(number, 3).path(out) for number in range(3)]
    assert format_scan(merge_parts(paths)[0]) == text_of_one(llama, exclude=("*.0.*q_proj",), tolerance=1e-3)


def test_parts_of_different_scans_are_refused(llama: Path, tmp_path: Path) -> None:
    first, _ = make_parts(llama, tmp_path / "a.json", 2)
    other = make_parts(llama, tmp_path / "b.json", 2, criterion="mp")[1]
    with pytest.raises(PartsError, match=r'parts of different scans: criterion was "spectrum", is "mp"'):
        merge_parts([first, other])
    thirds = make_parts(llama, tmp_path / "c.json", 3)
    with pytest.raises(PartsError, match="parts of different scans: parts was 2, is 3"):
        merge_parts([first, thirds[1]])


def test_a_part_belongs_to_its_number(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    make_part(llama, out, Part(0, 2))
    shutil.copy(Part(0, 2).path(out), Part(1, 2).path(out))
    with pytest.raises(JournalError, match=r'part was "0/2", is "1/2"'):
        make_part(llama, out, Part(1, 2))


def test_a_checkpoint_that_is_another_now_is_refused(llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(llama, model)
    paths = make_parts(model, tmp_path / "scan.json", 2)
    tensors = load_file(model / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(PartsError, match=r"not what .* is a part of: fingerprint was"):
        merge_parts(paths)
    scan, _ = merge_parts(paths, model=str(llama))  # another copy of the same checkpoint will do
    assert scan.modules == sf.scan(llama, threads=1).modules


def other_values(model: Path, folder: Path) -> Path:
    """The same header over other numbers, as another fine-tune has: each with the other sign."""
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    raw = np.fromfile(path, np.uint8)
    for ref in open_checkpoint(path).tensors:
        size = ref.nbytes // ref.element_count
        raw[ref.begin + size - 1 : ref.begin + ref.nbytes : size] ^= 0x80
    raw.tofile(path)
    return folder


def test_parts_of_different_values_under_one_header_are_refused(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    make_part(llama, out, Part(0, 2))
    make_part(other_values(llama, tmp_path / "tuned"), out, Part(1, 2))
    paths = [Part(0, 2).path(out), Part(1, 2).path(out)]
    for model, wrong in ((llama, paths[1]), (tmp_path / "tuned", paths[0])):
        with pytest.raises(PartsError, match=rf"{wrong}: scored from other values than {model} holds"):
            merge_parts(paths, model=str(model))


def test_parts_behind_a_server_and_on_a_disk_are_parts_of_one_checkpoint(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    out, served = tmp_path / "scan.json", f"/m/{next(llama.glob('*.safetensors')).name}"
    objects = {f"/m/{path.name}": path.read_bytes() for path in llama.iterdir()}
    with FileServer(dict(objects)) as server:
        make_part(llama, out, Part(0, 2))
        make_part(f"{server.url}/m/", out, Part(1, 2))
        paths = [Part(0, 2).path(out), Part(1, 2).path(out)]
        merged, _ = merge_parts(paths)
        assert merged.modules == sf.scan(llama, threads=1).modules
        far, _ = merge_parts(paths, model=f"{server.url}/m/")
        assert far.modules == merged.modules
        server.objects[served] = (other_values(llama, tmp_path / "tuned") / "model.safetensors").read_bytes()
        with pytest.raises(PartsError, match="part-0-of-2: scored from other values than"):
            merge_parts(paths, model=f"{server.url}/m/")
        paths[0].unlink()
        make_part(f"{server.url}/m/", out, Part(0, 2))  # the file behind the server was replaced between the parts
        with pytest.raises(PartsError, match="part-1-of-2: scored from other values than"):
            merge_parts(paths, model=f"{server.url}/m/")


def test_what_is_no_part_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the files of all parts"):
        merge_parts([])
    (tmp_path / "scan.json").write_text('{"schema": 1}')
    with pytest.raises(JournalError, match="expected the journal of a scan, found something else"):
        merge_parts([tmp_path / "scan.json"])
    sf.scan(llama, threads=1, journal=tmp_path / "journal")
    with pytest.raises(JournalError, match="found the journal of a whole one"):
        merge_parts([tmp_path / "journal"])
    with pytest.raises(JournalError, match="cannot be read: No such file"):
        merge_parts([tmp_path / "none"])
    (tmp_path / "empty").touch()
    with pytest.raises(JournalError, match="found an empty file"):
        merge_parts([tmp_path / "empty"])


@pytest.mark.parametrize("text", ["1", "4/4", "-1/2", "0/0", "a/b", "1/2/3", ""])
def test_parts_are_counted_from_0(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N, counted from 0"):
        parse_part(text)
    assert parse_part("3/4") == Part(3, 4)


# --- processes of one launcher -----------------------------------------------------------------------------------


def start_ranks(model: Path, out: Path, count: int, *more: object) -> list[subprocess.Popen[str]]:
    ranks = [{"RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]
    return [start(model, out, "--quiet", *more, variables=variables) for variables in ranks]


def test_two_processes_write_the_file_of_one_though_one_is_killed_and_started_again(
    deep: Path, uninterrupted: bytes, tmp_path: Path
) -> None:
    """Rank 0 waits for it."""
    out, timing = tmp_path / "scan.json", tmp_path / "timing.json"
    part = Part(1, 2).path(out)
    leader, victim = start_ranks(deep, out, 2, "--timing", timing)
    assert wait_for_modules(victim, part, 1)
    victim.kill()
    assert end(victim)[0] == -signal.SIGKILL, "it was through before it could be killed; a slower model"
    assert finished(part)
    again = start(deep, out, "--quiet", variables={"RANK": "1", "WORLD_SIZE": "2"})
    assert end(again) == (0, "", "")
    assert end(leader) == (0, "", "")
    assert out.read_bytes() == uninterrupted
    run = json.loads(timing.read_text())
    assert (run["processes"], run["threads"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.json", "timing.json"]


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
    assert wait_for_modules(process, Part(1, 2).path(out), 2)
    (victim,) = (pid for pid in children_of(process.pid) if b"RANK=1" in variables_of(pid))
    os.kill(victim, signal.SIGKILL)
    returned, _, stderr = end(process)
    assert returned == 0, stderr
    assert out.read_bytes() == uninterrupted


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def variables_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_parts_that_are_being_made_are_waited_for(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "WAIT_SECONDS", 0.0)
    out = tmp_path / "scan.json"
    make_part(llama, out, Part(0, 2))
    held = Journal(Part(1, 2).path(out))
    held.__enter__()
    merged: list[sf.Scan] = []
    waiting = threading.Thread(target=lambda: merged.append(merge_when_made(out, 2)))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive(), "nothing is over while somebody is at work"
    scan_part(llama, ScanOptions(threads=1), Part(1, 2), held)
    held.__exit__(None, None, None)
    waiting.join()
    assert format_scan(merged[0]) == text_of_one(llama)


def test_parts_that_do_not_come_are_an_error_that_names_them(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "WAIT_SECONDS", 0.0)
    make_part(llama, tmp_path / "scan.json", Part(0, 2))
    with pytest.raises(PartsError, match=r"nobody has worked on .* for 0 s.* one folder .*part 1 is not there"):
        merge_when_made(tmp_path / "scan.json", 2)
