"""Every fault that a disk or a machine can throw at a scan: a clear word, nothing lost, the same file in the end.

Each case runs the command two or three times; the common suite takes one of a kind, ``pytest -m slow`` all.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support.faults import build_injector, rule, variables
from support.processes import script

NO_CLUE = "Traceback"


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_injector(tmp_path_factory.mktemp("injector"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four matrices each."""
    folder = tmp_path_factory.mktemp("faulty") / "model"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    for shard in range(2):
        weights = {
            f"model.layers.{4 * shard + i}.mlp.up_proj.weight": torch.randn(210, 260, generator=generator)
            for i in range(4)
        }
        save_file(weights, folder / f"model-{shard + 1:05d}-of-00002.safetensors")
    return folder


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an undisturbed scan."""
    out = tmp_path_factory.mktemp("expected") / "scan.json"
    assert scan(model, out).returncode == 0
    return out.read_bytes()


def scan(
    model: Path,
    out: Path,
    *more: str,
    environment: Mapping[str, str] | None = None,
    preexec: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "spectrum_fast",
        "scan",
        str(model),
        "--out",
        str(out),
        "--quiet",
        "--threads",
        "1",
    ]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(
        [*command, "--threads", "1", *more],
        capture_output=True,
        text=True,
        env=variables,
        preexec_fn=preexec,
        check=False,
    )


def one_of_a_kind(names: Iterable[str], always: str) -> list[Any]:
    """All names as parameters, those but one marked slow."""
    return [pytest.param(name, marks=() if name == always else pytest.mark.slow) for name in names]


READ_FAULTS = {
    "bad sector": (
        rule("read", "model-00002", errno.EIO, skip=4, times=1),
        "Input/output error",
        "check the disk",
    ),
    "lost network mount": (rule("read", "model-00002", errno.ESTALE, skip=4), "Stale file handle", "check"),
    "no descriptors": (rule("open", "model-00002", errno.EMFILE), "Too many open files", "cannot be opened"),
}


@pytest.mark.parametrize("fault", one_of_a_kind(READ_FAULTS, "bad sector"))
def test_a_failing_read_names_the_file_and_the_scan_goes_on_later(
    fault: str, model: Path, expected: bytes, injector: Path, tmp_path: Path
) -> None:
    injected, *words = READ_FAULTS[fault]
    out = tmp_path / "scan.json"
    done = scan(model, out, environment=variables(injector, injected))
    assert done.returncode == 2, done.stderr
    assert NO_CLUE not in done.stderr
    assert "model-00002-of-00002.safetensors" in done.stderr
    for word in words:
        assert word in done.stderr
    assert not out.exists()
    assert scan(model, out).returncode == 0
    assert out.read_bytes() == expected


def test_short_reads_change_nothing(model: Path, expected: bytes, injector: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    done = scan(model, out, environment=variables(injector, rule("read", ".safetensors", 0, skip=2, times=200)))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected


WRITE_FAULTS = {
    "full disk": rule("write", ".scan.json.", errno.ENOSPC, skip=0),
    "full disk at the scan file": rule("write", ".tmp", errno.ENOSPC),
    "full quota at the rename": rule("rename", "scan.json", errno.EDQUOT),
    "read-only after an error": rule("rename", "scan.json", errno.EROFS),
    "failing flush": rule("fsync", "scan.json", errno.EIO),
    "forbidden folder": rule("open", "/out/", errno.EACCES),
}


@pytest.mark.parametrize("fault", one_of_a_kind(WRITE_FAULTS, "full disk at the scan file"))
def test_a_failing_write_leaves_the_old_file_and_says_what_to_do(
    fault: str, model: Path, expected: bytes, injector: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "out" / "scan.json"
    out.write_text("an older scan")
    environment = {**variables(injector, WRITE_FAULTS[fault]), "TMPDIR": str(tmp_path / "temporary")}
    done = scan(model, out, environment=environment)
    assert done.returncode == 2, done.stderr
    assert NO_CLUE not in done.stderr
    assert "scan.json" in done.stderr
    assert "make room and rights" in done.stderr
    assert out.read_text() == "an older scan"
    assert not [path for path in out.parent.iterdir() if path.suffix == ".tmp"]
    assert scan(model, out).returncode == 0
    assert out.read_bytes() == expected
    assert [path.name for path in out.parent.iterdir()] == ["scan.json"]


@pytest.mark.slow
def test_jumping_clocks_change_nothing(model: Path, expected: bytes, injector: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    done = scan(model, out, environment=variables(injector, clock_jump_seconds=10**8))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected


def test_out_of_memory_is_one_clear_word_and_the_scan_goes_on_later(tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "scan.json"
    folder.mkdir()
    generator = torch.Generator().manual_seed(2)
    weights = {
        "model.layers.0.mlp.up_proj.weight": torch.randn(210, 260, generator=generator),
        "model.layers.1.mlp.up_proj.weight": torch.randn(4000, 4000, generator=generator),
    }
    save_file(weights, folder / "model.safetensors")
    probe = [sys.executable, script("after_importing"), "resource", "torch", "spectrum_fast.scanning"]
    pages = json.loads(subprocess.run(probe, capture_output=True, text=True, check=True).stdout)["pages"]
    limit = pages * resource.getpagesize() + (40 << 20)  # no room for 64 MB

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = scan(folder, out, preexec=restrict)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert NO_CLUE not in done.stderr
    assert "memory" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_file_cut_while_it_is_read_is_an_error(model: Path, injector: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    second = copy / "model-00002-of-00002.safetensors"
    out = tmp_path / "scan.json"
    # Stop the scan by a failing read in the second shard; then cut that shard, and go on.
    first = scan(copy, out, environment=variables(injector, rule("read", second.name, errno.EIO, skip=4, times=1)))
    assert first.returncode == 2
    os.truncate(second, second.stat().st_size - 100)
    done = scan(copy, out)
    assert done.returncode == 2
    assert NO_CLUE not in done.stderr
    assert second.name in done.stderr
    assert "truncated" in done.stderr or "changed" in done.stderr
    assert not out.exists()
