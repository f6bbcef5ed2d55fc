"""Scans disturbed and resumed for half an hour in one process: ``python tests/trust/soak.py --minutes 30``.

Every cycle disturbs scans of several checkpoints in every way of :mod:`trust.disturbances`, and kills commands beside
it (:mod:`trust.kills`). After each the same scan is run again and must end in the bytes of an undisturbed one.
At the end of each cycle memory, descriptors, threads, children and files are counted. Exit code 0 if every result was
identical and everything stayed flat; with ``--out`` the figures are written there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

REMOTE = {
    "SPECTRUM_FAST_REMOTE_ATTEMPTS": "12",
    "SPECTRUM_FAST_REMOTE_DELAY_SECONDS": "0.01",
    "SPECTRUM_FAST_REMOTE_STALL_SECONDS": "2",
}
"""A network that is tried again at once, so that a dead one is known to be dead within a second."""


def soak(options: argparse.Namespace) -> int:
    """In the process that has the injector preloaded."""
    from bench.machine import machine_header
    from bench.results_file import write_results

    from support.forked import Forked
    from trust.soaking import Soak, judge, measure_settled

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    injector = Path(os.environ["LD_PRELOAD"])
    folder = injector.parent
    (folder / "words").mkdir()
    rows: list[dict[str, int]] = []
    with nullcontext() if options.quick else Forked(injector, folder / "words") as forked:
        soaked = Soak(folder, injector, forked, options.seed)
        started = time.monotonic()
        while len(rows) < options.cycles or time.monotonic() < started + 60 * options.minutes:
            soaked.cycle(len(rows))
            rows.append(measure_settled(folder, rows))
            print(f"cycle {len(rows)}: {rows[-1]}", flush=True)
        seconds = time.monotonic() - started
        soaked.finish_kills()
        soaked.close()
    figures, problems = judge(rows, seconds)
    results = {
        "minutes": round(seconds / 60, 1),
        "cycles": len(rows),
        "seed": options.seed,
        **soaked.facts(),
        **figures,
        "problems": problems,
    }
    print(json.dumps(results, indent=1))
    if options.out is not None:
        write_results(options.out, {"machine": machine_header(), **results})
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long, at least")
    parser.add_argument("--cycles", type=int, default=1, help="how many cycles, at least")
    parser.add_argument("--seed", type=int, default=1, help="of where the faults strike")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--quick", action="store_true", help="one checkpoint and no kills: does it run at all?")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return soak(options)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        from support.faults import build_injector

        environment = {**os.environ, **REMOTE, "OMP_NUM_THREADS": "1", "SPECTRUM_FAST_POISON": "1", "TMPDIR": folder}
        environment["LD_PRELOAD"] = str(build_injector(Path(folder)))
        command = [sys.executable, __file__, "--inside", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
