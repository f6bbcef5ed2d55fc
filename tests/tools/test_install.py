"""The set-up speaks in a few lines: what installers say is in a log, and shown where one fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import install

SCRIPT = Path(install.__file__)


def test_without_a_compiler_it_says_so_before_anything_is_downloaded(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "CXX": ""}
    done = subprocess.run([sys.executable, SCRIPT, "core"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert "a C++20 compiler (Debian: g++), found neither c++, g++ nor clang++" in lines[0]
    assert "nothing was downloaded" in lines[1]
    assert "make setup PURE=1" in lines[1]
    assert len(lines) == 2


def test_a_compiler_that_knows_no_cpp20_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    old = tmp_path / "old-c++"
    old.write_text("#!/bin/sh\necho \"error: unrecognized option '-std=c++20'\" >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(SystemExit):
        install.require_compiler()
    assert f"{old} says: error: unrecognized option '-std=c++20'" in capsys.readouterr().err
    monkeypatch.setenv("SPECTRUM_FAST_PURE", "1")
    install.require_compiler()
    assert install.project()[2:] == ("--config-settings=wheel.cmake=false", "--config-settings=wheel.py-api=py3")


def test_pip_is_quiet_until_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(install, "LOG", tmp_path / "build" / "setup.log")
    install.pip("--version", command="list")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(SystemExit) as leaving:
        install.pip("--no-index", "no-such-package-anywhere")
    assert leaving.value.code == 1
    said = capfd.readouterr().err
    assert "No matching distribution found for no-such-package-anywhere" in said
    assert said.splitlines()[-1].startswith("setup: `pip install` failed; all of what it said is in ")
    assert "pip list" in install.LOG.read_text().splitlines()[0]
