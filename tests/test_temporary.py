"""Temporary files and folders: made and gone, swept where their process is dead, left alone where it lives."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from spectrum_fast.files import write_bytes_atomic
from spectrum_fast.temporary import sweep, temporary_beside


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_it_is_gone_unless_it_was_renamed(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "a.json"
    with temporary_beside(target, folder=folder) as (path, _):
        assert path.parent == tmp_path
        assert path.is_dir() == folder
    assert names(tmp_path) == []
    with temporary_beside(target, folder=folder) as (path, _):
        os.rename(path, target)
    assert names(tmp_path) == ["a.json"]


def _hold(target: Path, folder: bool, ready: multiprocessing.connection.Connection) -> None:
    with temporary_beside(target, folder=folder) as (path, _):
        if folder:
            (path / "inside").write_text("half")
        ready.send(str(path))
        signal.pause()


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_living_process_fills_stays_and_what_a_dead_one_left_goes(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "a.json"
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(target, folder, theirs))
    process.start()
    path = Path(ours.recv())
    write_bytes_atomic(target, b"{}") if not folder else sweep(target)
    assert path.exists()
    process.kill()
    process.join()
    assert path.exists()
    write_bytes_atomic(target, b"[]") if not folder else sweep(target)
    assert not path.exists()


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    kept = [
        ".a.json.0123456789ab.tmp.txt",
        ".a.json.0123456789a.tmp",
        "a.json.0123456789ab.tmp",
        ".b.json.0123456789ab.tmp",
        ".aXjson.0123456789ab.tmp",
    ]
    for name in [*kept, ".a.json.0123456789ab.tmp"]:
        (tmp_path / name).touch()
    (tmp_path / ".a.json.ffffffffffff.tmp").symlink_to(tmp_path / "a.json.0123456789ab.tmp")
    sweep(tmp_path / "a.json")
    assert names(tmp_path) == sorted([*kept, ".a.json.ffffffffffff.tmp"])


def test_where_nothing_can_be_locked_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system without locks: files are written all the same."""
    (tmp_path / ".a.json.0123456789ab.tmp").touch()

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    write_bytes_atomic(tmp_path / "a.json", b"{}")
    assert names(tmp_path) == [".a.json.0123456789ab.tmp", "a.json"]
