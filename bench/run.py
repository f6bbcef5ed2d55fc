"""Run the benchmark suites, write ``bench/results/NAME.json`` with the machine it ran on, and say what moved.

``python bench/run.py`` (full, a quarter of an hour on two cores) or ``python bench/run.py --size small`` (a minute).
A small run is a smoke test: it writes nothing unless ``--name`` is given.
Exit codes: 0 done, 1 a benchmark failed (a wrong score counts), 2 an earlier result file is unreadable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if not __package__:  # started as a script: the checkout root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import history
from bench.machine import machine_header, machine_slug
from bench.results_file import (
    comparable,
    describe_changes,
    format_table,
    parse_results,
    read_results,
    trim_report,
    write_results,
)
from spectrum_fast.errors import SpectrumFastError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and keep the result with its machine.")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small is a smoke run")
    parser.add_argument("--name", help="name of the result file (default: the machine's; none for a small run)")
    parser.add_argument("--select", default="", metavar="EXPRESSION", help="run the benchmarks that match (pytest -k)")
    options = parser.parse_args(arguments)

    machine = machine_header()
    with tempfile.TemporaryDirectory() as folder:
        report_path = Path(folder) / "report.json"
        code = run_suites(options.size, options.select, report_path)
        if not report_path.exists() or not report_path.stat().st_size:
            print("bench: no benchmark finished", file=sys.stderr)
            return 1
        report = json.loads(report_path.read_text(encoding="utf-8"))
    try:
        results = trim_report(report, machine, options.size)
        print(format_table(results))
        name = options.name or (machine_slug(machine) if options.size == "full" and not options.select else None)
        if name and code:
            print("bench: nothing written, because a benchmark failed", file=sys.stderr)
        elif name:
            keep(RESULTS / f"{name}.json", results)
            history.main()
        elif options.size == "full":  # a part of the suites: nothing is written, but what moved is told
            compare(RESULTS / f"{machine_slug(machine)}.json", results)
    except SpectrumFastError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 1 if code else 0


def run_suites(size: str, select: str, report_path: Path) -> int:
    """Run pytest on ``bench/`` and write its report; returns pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "bench", "-q", "--benchmark-only", f"--bench-size={size}"]
    command += [f"--benchmark-json={report_path}", "--benchmark-columns=median,rounds", "--benchmark-disable-gc"]
    if select:
        command += ["-k", select]
    # torch's and the kernels' OpenMP waiters must not hold the cores against each other; see spectrum_fast/use/cli.
    environment = {"GOMP_SPINCOUNT": "3000", **os.environ}
    return subprocess.run(command, check=False, cwd=ROOT, stdout=sys.stderr, env=environment).returncode


def keep(path: Path, results: dict[str, Any]) -> None:
    """Print what moved against the committed file, then replace it."""
    compare(path, results)
    write_results(path, results)
    print(f"written: {path.name}")


def compare(path: Path, results: dict[str, Any]) -> None:
    """Print what moved beyond noise against the baseline: the committed file, or where there is none the one here."""
    earlier, whence = baseline(path)
    if earlier is None:
        print(f"no earlier {path.name} to compare with")
        return
    reason = comparable(earlier, results)
    if reason:
        print(f"not compared with {whence}: {reason}")
        return
    for line in describe_changes(earlier, results, whence):
        print(line)


def baseline(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The results to compare with, and what to call them."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    if name:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "show", f"HEAD:{name}"], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            return parse_results(done.stdout, path.name), f"the committed {path.name}"
    if path.exists():
        return read_results(path), f"the earlier {path.name}"
    return None, ""


if __name__ == "__main__":
    sys.exit(main())
