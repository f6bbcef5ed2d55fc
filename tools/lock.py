"""Write ``locks/``: every package that ``make setup`` installs, pinned, with the SHA-256 of each of its files.

Usage: python -m tools.lock    (needs uv; ``make lock`` installs it)

``constraints.txt`` holds the versions that people choose; the resolver adds what these need and keeps what the present
locks say wherever it can. Four files, so that a machine gets only what it needs:

- ``torch.txt``: torch alone, its CPU-only build too;
- ``cuda.txt``: the CUDA libraries and triton, which torch's other build needs;
- ``core.txt``: what a scan and the compilation of the extension need;
- ``dev.txt``: everything else, for tests, checks and documentation.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib  # pyright: ignore[reportMissingImports]  # run with 3.11 or newer; the package is for 3.10 too

from tools.install import OLDEST, UNRESOLVED

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
BUILD_TOOLS = ("cmake", "ninja", "setuptools")
CPU_TORCH = {  # from PyTorch's own index; the package index has the CUDA build only
    "2.13.0": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # cp311 manylinux_2_28_x86_64
    ),
}
_CUDA = re.compile(r"(nvidia|cuda)-")
_HEADER = "# Written by `make lock`; do not edit. See tools/lock.py.\n"

Blocks = dict[str, str]
"""Package name -> its lines: the pin, its marker and its hashes."""


def main() -> None:
    """Resolve, split and write."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    core = resolve(["pyproject.toml"], [*build, *BUILD_TOOLS]) | resolve([], UNRESOLVED["core"], dependencies=False)
    everything = resolve(["pyproject.toml"], [*build, *BUILD_TOOLS], "--all-extras")
    everything |= resolve([], UNRESOLVED["dev"], dependencies=False)
    torch = everything["torch"]
    version = torch.split()[0].removeprefix("torch==")
    added = "".join(f" \\\n    --hash=sha256:{digest}" for digest in CPU_TORCH[version] if digest not in torch)
    cuda = {name for name in everything if _CUDA.match(name)}
    write("torch", {"torch": torch.rstrip("\n") + added + "\n"})
    write("cuda", {name: everything[name] for name in cuda | {"triton"}})
    # Lines of the whole resolution: something of the development set may want a package on more platforms.
    kept = {name: everything.get(name, lines) for name, lines in core.items() if name not in cuda | {"torch", "triton"}}
    write("core", kept)
    write("dev", {name: lines for name, lines in everything.items() if name not in cuda | {"torch"} | set(kept)})


def resolve(
    projects: list[str], requirements: list[str] | tuple[str, ...], *options: str, dependencies: bool = True
) -> Blocks:
    """What these need, for every platform, with all hashes."""
    with tempfile.TemporaryDirectory() as folder:
        listed, out = Path(folder, "in.txt"), Path(folder, "out.txt")
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        out.write_text(
            "".join(path.read_text(encoding="utf-8") for path in sorted(LOCKS.glob("*.txt"))), encoding="utf-8"
        )
        command = ["uv", "pip", "compile", *projects, str(listed), "-c", "constraints.txt", "-o", str(out), *options]
        command += ["--universal", "--python-version", ".".join(map(str, OLDEST)), "--generate-hashes", "--quiet"]
        command += ["--no-header", "--no-annotate", *([] if dependencies else ["--no-deps"])]
        subprocess.run(command, cwd=ROOT, check=True)
        return parse(out.read_text(encoding="utf-8"))


def parse(text: str) -> Blocks:
    """The blocks of a requirements file with hashes."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {re.split(r"[=\[ ]", block, maxsplit=1)[0].lower(): block for block in blocks if "==" in block}


def write(name: str, blocks: Blocks) -> None:
    """One lock file, sorted by name."""
    LOCKS.mkdir(exist_ok=True)
    (LOCKS / f"{name}.txt").write_text(_HEADER + "".join(blocks[key] for key in sorted(blocks)), encoding="utf-8")
    print(f"locks/{name}.txt: {len(blocks)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
