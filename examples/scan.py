"""Scan a checkpoint, look at the scores, choose, and write the files that trainers read.

    python examples/scan.py MODEL OUT

MODEL is a folder, a .safetensors file or a hub id; OUT a folder, made if it is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import spectrum_fast as sf


def main(model: str, out: Path) -> None:
    """Scan and write ``scan.json``, ``unfrozen.yaml`` and ``targets.json``."""
    out.mkdir(parents=True, exist_ok=True)
    scan = sf.scan(model)
    scan.save(out / "scan.json")

    for kind, modules in scan.by_type().items():
        best = max(modules, key=lambda module: module.rank_value)
        snr = "noise-free" if best.snr is None else f"{best.snr:.4g}"
        print(f"{kind}: {len(modules)} modules, best {best.name} ({snr})")
    for failure in scan.failures:
        print(f"no score: {failure.message}", file=sys.stderr)

    selection = scan.select(top_percent=25, allow_incomplete=True)
    selection.save(out / "unfrozen.yaml", "axolotl")
    selection.save(out / "targets.json", "peft")
    print(selection.summary())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
