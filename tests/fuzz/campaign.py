"""A coverage-guided campaign: ``python tests/fuzz/campaign.py --inputs 1000000`` (needs ``pip install atheris``).

Each target gets its share of the inputs in a process of its own. A find is written to ``tests/fuzz/corpus/TARGET/``,
where ``tests/fuzz/test_corpus.py`` replays it from then on; the exit code is 1. Exit code 0: no find, and with
``--out`` the figures are written there.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs in all, shared among the targets")
    parser.add_argument("--target", action="append", help="only this target; repeatable")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.worker:
        return fuzz(options.worker, rest)
    names = options.target or list(_target_names())
    rows = [run_target(name, options.inputs // len(names), options.seed) for name in names]
    found = sum(row["finds"] for row in rows)
    print(f"{sum(row['inputs'] for row in rows)} inputs in {len(names)} targets, {found} finds")
    if options.out and not found:
        figures = {"seed": options.seed, "atheris": metadata.version("atheris"), "targets": rows}
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if found else 0


def run_target(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Run one target in a process of its own; returns inputs executed, edges covered and whether there was a find."""
    finds = CORPUS / name
    finds.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as folder:
        command = [sys.executable, __file__, "--worker", name, folder, f"-runs={inputs}", f"-seed={seed}"]
        command += [f"-artifact_prefix={finds}/", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048"]
        result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    counts = re.findall(r"^#(\d+)\s", result.stderr, re.MULTILINE)
    coverage = re.findall(r"cov: (\d+)", result.stderr)
    if result.returncode:
        print(result.stderr[-4000:], file=sys.stderr)
    row = {
        "target": name,
        "inputs": max(map(int, counts), default=0),
        "edges": int(coverage[-1]) if coverage else 0,
        "finds": int(result.returncode != 0),
    }
    print(row)
    return row


def fuzz(name: str, arguments: list[str]) -> int:
    """The worker: instrument the readers, seed the corpus, hand over to libFuzzer (which does not return)."""
    import atheris

    sys.path[:0] = [str(ROOT), str(HERE.parent), str(HERE)]
    with atheris.instrument_imports(include=["spectrum_fast"]):
        from targets import TARGETS
    target, folder = TARGETS[name], Path(arguments[0])
    for number, seed in enumerate(target.seeds):
        (folder / f"seed{number}").write_bytes(seed)
    for known in sorted((CORPUS / name).glob("*")):
        (folder / known.name).write_bytes(known.read_bytes())
    words = folder.parent / f"{folder.name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    try:
        atheris.Setup([sys.argv[0], *arguments, f"-dict={words}"], target.run)
        atheris.Fuzz()
    finally:
        words.unlink(missing_ok=True)
    return 0


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _target_names() -> tuple[str, ...]:
    sys.path[:0] = [str(ROOT), str(HERE.parent), str(HERE)]
    from targets import TARGETS

    return tuple(TARGETS)


if __name__ == "__main__":
    raise SystemExit(main())
