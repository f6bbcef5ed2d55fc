"""Hold stated error bounds to float64 SVD on as many matrices as you like.

Run it with ``python tests/measure/spectra/campaign.py``.

Draws ``--matrices`` from all families with sides log-uniform in ``--smallest`` to ``--largest``, scores each by every
engine under both criteria, and prints how near the errors came to the bounds and on which matrix, by engine and by
family. Exit code 1 if a bound did not hold. ``--keep`` writes the worst case of each engine to ``worst_cases.json``,
which ``make test`` holds to its bound from then on; ``--out`` writes the figures, beside those of campaigns over other
sizes or engines that the file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.machine import machine_header  # noqa: E402
from bench.results_file import SCHEMA, read_results, write_results  # noqa: E402
from spectrum_fast.measure.ops.dispatch import set_threads  # noqa: E402

from support import bound_cases, bounds, families  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--matrices", type=int, default=20_000, help="in all, shared among the families")
    parser.add_argument("--seed", type=int, default=1000, help="of the first; make test draws seeds below 1000")
    parser.add_argument("--smallest", type=int, default=1, help="side")
    parser.add_argument("--largest", type=int, default=600, help="side")
    parser.add_argument("--engine", action="append", choices=bounds.EVERY_ENGINE, help="only this one; repeatable")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after the seed that lasts so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write worst_cases.json")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    options = parser.parse_args()
    set_threads(options.threads)
    tasks = [(engine, criterion) for engine in options.engine or bounds.EVERY_ENGINE for criterion in bounds.CRITERIA]
    each = -(-options.matrices // len(families.FAMILIES))
    tally, broken, drawn = bound_cases.Tally(), [], 0
    began = time.monotonic()
    for seed in range(options.seed, options.seed + each):
        if time.monotonic() - began > 60 * options.minutes:
            break
        drawn += len(families.FAMILIES)
        for family in families.FAMILIES:
            for case in bound_cases.measure(family, seed, options.smallest, options.largest, tasks):
                tally.add(case)
                if case.ratio > 1:
                    broken.append(case)
                    print(f"does not hold: {case.engine}: {case}", flush=True)
    print("\n".join(tally.lines()))
    print(f"{drawn} matrices, sides {options.smallest} to {options.largest}: {len(broken)} bounds do not hold")
    if options.keep:
        keep([*tally.worst.values(), *broken])
    if options.out:
        figures = {
            "machine": machine_header(),
            "matrices": drawn,
            "families": list(families.FAMILIES),
            "first_seed": options.seed,
            "sides": [options.smallest, options.largest],
            "engines": options.engine or list(bounds.EVERY_ENGINE),
            "broken": len(broken),
            "rows": tally.rows(),
            "worst_by_family": tally.families(),
        }
        add_to(options.out, figures)
    return 1 if broken else 0


def add_to(path: Path, figures: dict[str, Any]) -> None:
    """Write a campaign's figures in place of those of an earlier one over the same sizes and engines."""
    results = read_results(path) if path.exists() else {"schema": SCHEMA, "campaigns": []}
    same = [figures[key] for key in ("sides", "engines")]
    others = [one for one in results["campaigns"] if [one[key] for key in ("sides", "engines")] != same]
    write_results(path, {**results, "campaigns": _short([*others, figures])})


def keep(cases: list[bound_cases.Case]) -> None:
    """Put the worst case of each engine and criterion, and all that broke a bound, into the committed file.

    Cases with a note, which broke a bound that was mended, stay.
    """
    known = bound_cases.read_worst_cases() if bound_cases.WORST_CASES.exists() else []
    noted = [case for case in known if case.note]
    rivals = sorted((case for case in [*known, *cases] if not case.note), key=lambda case: case.ratio)
    kept = {(case.engine, case.criterion): case for case in rivals}
    broken = [case for case in rivals if case.ratio > 1 and case not in kept.values()]
    worst = [*kept.values(), *broken, *noted]
    worst.sort(key=lambda case: (bounds.EVERY_ENGINE.index(case.engine), case.criterion, case.note))
    entries = [json.dumps(_short(asdict(case))) for case in worst]
    bound_cases.WORST_CASES.write_text("[\n " + ",\n ".join(entries) + "\n]\n", encoding="utf-8")


def _short(value: object) -> object:
    """Three significant digits of every float, however deep."""
    if isinstance(value, float):
        return float(f"{value:.3g}") if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _short(entry) for key, entry in value.items()}
    return [_short(entry) for entry in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    raise SystemExit(main())
