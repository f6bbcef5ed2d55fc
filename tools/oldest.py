"""The core of the tests under the oldest versions that ``pyproject.toml`` allows: ``make test-oldest``.

Usage: python -m tools.oldest [PYTEST ARGUMENT...]

uv chooses the lowest version of everything that the project names (torch, triton, transformers, numpy and the others)
for Python 3.10; an environment in ``build/oldest`` gets them, and the package compiled for it (the CUDA build of torch,
the only one of that age on the package index: seven gigabytes). It is made again when the list changes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools.install import pip, project
from tools.wheels import find_python

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "oldest"
PYTHON = "3.10"
EXTRAS = ("gpu",)
BESIDE = (
    "transformers>=5.17",
    "gguf>=0.19",
    "hypothesis>=6.150",
    "pandas>=2.2",
    "plotly>=6",
    "pytest>=9",
    "pytest-xdist>=3.8",
    "scipy>=1.15",
    "threadpoolctl>=3.6",
)
"""What tests need; transformers at the lower bound of the extra ``train``."""
TESTS = (
    "tests/test_options.py",
    "tests/measure",
    "tests/read",
    "tests/choose/selection",
    "tests/choose/library",
    "tests/scanning",
    "tests/use/cli",
)


def main(arguments: list[str]) -> int:
    """Make the environment where it is missing or stale, then run the tests."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    chosen = choose(environment)
    done, python = HOME / "requirements.txt", HOME / "bin" / "python"
    if not done.exists() or done.read_text(encoding="utf-8") != chosen:
        subprocess.run([find_python(PYTHON), "-m", "venv", "--clear", str(HOME)], check=True)
        (HOME / "wanted.txt").write_text(chosen, encoding="utf-8")
        pip("--no-deps", "-r", str(HOME / "wanted.txt"), python=python)
        pip("--no-deps", *project(), python=python)
        (HOME / "wanted.txt").replace(done)
    command = [str(python), "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1), "--dist", "loadfile"]
    return subprocess.run([*command, *(arguments or TESTS)], cwd=ROOT, check=False).returncode


def choose(environment: dict[str, str]) -> str:
    """The lowest versions that fit together, as requirements."""
    tools = ROOT / "build" / "uv"
    if not tools.exists():
        pip("--target", str(tools), "-c", "constraints.txt", "uv")
    command = [str(tools / "bin" / "uv"), "pip", "compile", "pyproject.toml", "-", "--quiet", "--no-header"]
    command += ["--no-annotate", "--python-version", PYTHON, "--resolution", "lowest-direct"]
    command += [f"--extra={extra}" for extra in EXTRAS]
    wanted = "\n".join(BESIDE)
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"oldest: the lowest versions do not fit together:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
