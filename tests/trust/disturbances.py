"""Everything that can go wrong with a scan inside one long-lived process, one method a kind, and the scan after it.

Each takes a model and an output file that does not exist, disturbs one scan, and asserts what it must end in. The
caller then scans again into the same file, undisturbed, and compares bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # started as the server: a script
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import pytest

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError, JournalError, ScanFileError, UsageError
from spectrum_fast.scanning.journal import Journal, journal_path

from support.faults import rule
from support.file_server import Fault, FileServer, Request

OPTIONS: dict[str, Any] = {"threads": 1}
ROUGH = (
    Fault("reset", after=50),
    Fault("short", after=50),
    Fault("less", after=50),
    Fault("drop"),
    Fault("status", status=503),
    Fault("status", status=429, headers=(("Retry-After", "0"),)),
)


class Network:
    """A file server in a process of its own; ``weather`` decides how its network behaves.

    Args:
        folder: files that are served.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def weather(self, kind: str) -> None:
        """``calm``, ``rough`` (one answer in four is broken) or ``dead`` (all are)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(kind + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == kind

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Disturbances:
    """Every kind, by name in ``local`` and ``remote``.

    Args:
        injector: the compiled library, preloaded in this process.
        network: serves the models; None if there is none to disturb.
        draw: decides where a fault strikes.
    """

    def __init__(self, injector: Path, network: Network | None, draw: random.Random) -> None:
        self._library = ctypes.CDLL(str(injector))
        self._network, self._draw = network, draw
        self.local: dict[str, Callable[[Path, Path], None]] = {
            "bad sector": self._read_fault(errno.EIO),
            "stale mount": self._read_fault(errno.ESTALE),
            "no descriptors": self._no_descriptors,
            "short reads": self._short_reads,
            "disk full at the journal": self._write_fault("write", ".journal", errno.ENOSPC, JournalError, 6),
            "journal's flush fails": self._write_fault("fsync", ".journal", errno.EIO, JournalError, 0),
            "disk full at the scan file": self._write_fault("write", ".tmp", errno.ENOSPC, ScanFileError, 0),
            "scan file's flush fails": self._write_fault("fsync", ".tmp", errno.EIO, ScanFileError, 0),
            "quota at the rename": self._write_fault("rename", "scan.json", errno.EDQUOT, ScanFileError, 0),
            "cancelled between two modules": self._cancelled,
            "SIGINT while reading": self._interrupted,
            "buffer too small": self._small_buffer,
            "file truncated meanwhile": self._changed(lambda path: os.truncate(path, path.stat().st_size - 64)),
            "file replaced meanwhile": self._changed(lambda path: os.replace(_copied(path, "copy"), path)),
            "output in use": self._in_use,
        }
        self.remote: dict[str, Callable[[str, Path], None]] = {
            "rough network": self._rough,
            "dead network": self._dead,
            "cancelled on the network": self._cancelled,
        }

    def _fail(self, source: Path | str, out: Path, error: type[BaseException], *rules: str, **more: Any) -> None:
        """One scan that must end in ``error`` and leave no scan file."""
        self._library.inject(";".join(rules).encode())
        try:
            with pytest.raises(error):
                sf.scan(str(source), out=out, **{**OPTIONS, **more})
        finally:
            self._library.inject(b"")
        assert not out.exists()
        assert not list(out.parent.glob(".*.tmp"))

    def _read_fault(self, number: int) -> Callable[[Path, Path], None]:
        def disturb(model: Path, out: Path) -> None:
            shard = self._last_shard(model)
            skip = self._draw.randrange(3)
            self._fail(model, out, CheckpointError, rule("read", shard.name, number, skip=skip))

        return disturb

    def _write_fault(
        self, call: str, name: str, number: int, error: type[Exception], most: int
    ) -> Callable[[Path, Path], None]:
        def disturb(model: Path, out: Path) -> None:
            skip = self._draw.randrange(most) if most else 0
            self._fail(model, out, error, rule(call, name, number, skip=skip))

        return disturb

    def _no_descriptors(self, model: Path, out: Path) -> None:
        self._fail(model, out, CheckpointError, rule("open", self._last_shard(model).name, errno.EMFILE))

    def _short_reads(self, model: Path, out: Path) -> None:
        self._library.inject(rule("read", ".safetensors", 0, skip=2, times=100).encode())
        sf.scan(str(model), out=out, **OPTIONS)
        self._library.inject(b"")

    def _cancelled(self, source: Path | str, out: Path) -> None:
        left = self._draw.randrange(1, 5)

        def progress(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        self._fail(source, out, KeyboardInterrupt, progress=progress)

    def _interrupted(self, model: Path, out: Path) -> None:
        shard = self._last_shard(model)
        self._fail(model, out, KeyboardInterrupt, rule("read", shard.name, -signal.SIGINT, skip=2, times=1))

    def _small_buffer(self, model: Path, out: Path) -> None:
        self._fail(model, out, UsageError, buffer_gib=1e-6)

    def _changed(self, change: Callable[[Path], None]) -> Callable[[Path, Path], None]:
        def disturb(model: Path, out: Path) -> None:
            shard = self._last_shard(model)
            kept = _copied(shard, "kept")
            done = False

            def progress(_: object) -> None:
                nonlocal done
                if not done:
                    change(shard)
                    done = True

            try:
                self._fail(model, out, CheckpointError, progress=progress)
            finally:
                os.replace(kept, shard)

        return disturb

    def _in_use(self, model: Path, out: Path) -> None:
        with Journal(journal_path(out)):
            self._fail(model, out, JournalError)

    def _rough(self, address: str, out: Path) -> None:
        assert self._network is not None
        self._network.weather("rough")
        sf.scan(address, out=out, **OPTIONS)
        self._network.weather("calm")

    def _dead(self, address: str, out: Path) -> None:
        assert self._network is not None
        self._network.weather("dead")
        self._fail(address, out, CheckpointError)
        self._network.weather("calm")

    @staticmethod
    def _last_shard(model: Path) -> Path:
        return sorted(model.glob("*.safetensors"))[-1]


def _copied(path: Path, ending: str) -> Path:
    return Path(shutil.copy2(path, path.with_suffix(f".{ending}")))


def _serve(folder: Path) -> None:
    """Serve the files until stdin ends; each line on it is the weather from now on."""
    objects = {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    draw = random.Random(1)
    weather = "calm"

    def choose(_: Request) -> Fault | None:
        if weather == "dead":
            return Fault("drop")
        return draw.choice(ROUGH) if weather == "rough" and draw.random() < 0.25 else None

    with FileServer(objects=objects, choose=choose) as server:
        print(server.url, flush=True)
        for line in sys.stdin:
            weather = line.strip()
            server.requests.clear()
            print(weather, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
