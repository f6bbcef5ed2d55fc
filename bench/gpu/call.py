"""The three calls of a GPU run, each a list of steps with a limit each; see README.md beside this file.

``bench/gpu.sh first`` (then ``second``, ``third``) runs one, ``bench/gpu.sh`` all of them. A step is a process of its
own; one that fails, or is stopped at its limit, takes no other with it, and the last ones get what time is left. A call
writes two files into ``$OUT``: ``gpu-CALL.json``, whole after every row, and ``gpu-CALL.log`` with all that was said.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
_KILL_SECONDS = 5.0
"""Between asking a process to end and ending it."""
_LEAST_SECONDS = 8.0
"""No step begins with less than this."""

BATCHED = ("tests/measure/spectra/test_batched_gpu.py", "tests/measure/ops/test_compile_ahead.py")
TESTS = (
    "tests/measure/spectra",
    "tests/measure/ops/test_triton_*.py",
    "tests/measure/ops/test_device_graph.py",
    "tests/measure/ops/test_contract.py",
    "tests/measure/ops/test_product.py",
    "tests/measure/ops/test_full_precision.py",
    "tests/measure/ops/test_compile_ahead.py",
    "tests/read/stream",
    "tests/read/formats/test_scaled.py",
    "tests/scanning/test_scorers.py",
    "tests/scanning/test_overlap.py",
    "tests/scanning/test_live.py",
    "tests/scanning/test_independence.py",
    "tests/choose/planner/test_peak_gpu.py",
)
"""Every test that only a GPU can run (``tests/bench/test_gpu_script.py`` looks for more), best ones first."""
_REHEARSED = "test_compile_ahead.py"
"""The tests themselves have been run on the emulated device elsewhere."""
CHECKED = "known_spectra or no_numbers_are_made or graph or every_kernel"
"""Of those, the ones that a memory checker, which makes a kernel fifty times slower, gets through."""


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: for the log.
        seconds: limit.
        module: what of ours runs, with its arguments; ``pytest`` for tests.
        under: a program to run it under, with its arguments; the step is left out where it is not installed.
    """

    name: str
    seconds: float
    module: tuple[str, ...]
    under: tuple[str, ...] = ()


def _tests(name: str, seconds: float, paths: Sequence[str], *more: str, under: tuple[str, ...] = ()) -> Step:
    return Step(name, seconds, ("pytest", "-v", "-m", "gpu", "--durations=8", *more, *paths), under)


def _suite(section: str, seconds: float) -> Step:
    return Step(section, seconds, ("bench.gpu.suite", section))


COUNTERS = "sm__throughput.avg.pct_of_peak_sustained_elapsed,dram__throughput.avg.pct_of_peak_sustained_elapsed"
CALLS: dict[str, tuple[float, tuple[Step, ...]]] = {
    "first": (
        280,
        (
            _suite("rates", 20),
            Step("compile", 45, ("spectrum_fast.measure.ops.compile_ahead",)),
            _tests("known spectra and batches", 50, BATCHED),
            Step("spectra", 75, ("bench.gpu.models", "--kind", "bfloat16")),
            Step("profile", 30, ("bench.gpu.kernel_profile",)),
            _suite("gram", 30),
            _tests("tests", 280, TESTS),
        ),
    ),
    "second": (
        270,
        (
            _suite("rates", 20),
            Step("scan", 110, ("bench.gpu.whole_scan",)),
            Step("experts in FP8", 40, ("bench.gpu.models", "--kind", "fp8")),
            _suite("graphs", 45),
            _suite("variants", 50),
            _suite("rest", 270),
        ),
    ),
    "third": (
        240,
        (
            _suite("rates", 20),
            Step("peers", 160, ("bench.gpu.peers", "--limit", "20")),
            _tests("memcheck", 45, BATCHED, "-k", CHECKED, under=("compute-sanitizer", "--tool", "memcheck")),
            Step(
                "counters",
                240,
                ("bench.gpu.kernel_profile", "--once"),
                ("ncu", "--launch-skip", "40", "--launch-count", "60", "--metrics", COUNTERS),
            ),
        ),
    ),
}


def run_call(call: str, out: Path, *, scale: float = 1.0, rehearse: bool = False) -> list[str]:
    """Run the steps of a call; returns the names of those that failed or were stopped.

    Args:
        call: which.
        out: folder for the two files.
        scale: of every limit.
        rehearse: toy sizes on any device.
    """
    limit, steps = CALLS[call]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it, and so would every step
    began, failed = time.monotonic(), []
    with (out / f"gpu-{call}.log").open("a", encoding="utf-8") as log:
        for step in steps:
            left = limit * scale - (time.monotonic() - began) - _KILL_SECONDS * min(scale, 1.0)
            if left < _LEAST_SECONDS * min(scale, 1.0):
                outcome = "left out: no time is left"
            elif step.under and shutil.which(step.under[0]) is None:
                outcome = f"left out: {step.under[0]} is not installed"
            else:
                seconds = min(step.seconds * scale, left)
                _say(log, f"== {step.name}, at most {seconds:.0f} s")
                outcome = _run(_command(step, out / f"gpu-{call}.json", seconds, rehearse=rehearse), log, seconds)
                if outcome != "done":
                    failed.append(step.name)
            _say(log, f"== {step.name}: {outcome}, {time.monotonic() - began:.0f} s of the call so far")
    return failed


def _command(step: Step, results: Path, seconds: float, *, rehearse: bool) -> list[str]:
    """``LAUNCHER`` names a module that runs another one, as the emulated device does."""
    launcher = os.environ.get("LAUNCHER")
    python = [*step.under, sys.executable, "-m", *([launcher] if launcher else [])]
    module, *arguments = step.module
    if module == "pytest":
        workers = ["-n", "8"] if importlib.util.find_spec("xdist") and not step.under and not rehearse else []
        found = [str(path) for one in arguments if one.startswith("tests/") for path in sorted(ROOT.glob(one))]
        found = [path for path in found if not rehearse or path.endswith(_REHEARSED)]
        options = [one for one in arguments if not one.startswith("tests/")]
        return [*step.under, sys.executable, "-m", "pytest", *options, *workers, *found]
    if module.startswith("bench."):
        arguments += ["--out", str(results), "--budget", f"{0.85 * seconds:.1f}", *(["--rehearse"] if rehearse else [])]
    return [*python, module, *arguments]


def _run(command: Sequence[str], log: IO[str], seconds: float) -> str:
    """``done``, or what went wrong; what the process starts ends with it."""
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"stopped at its limit of {seconds:.0f} s"
    except BaseException:  # this process is stopped itself
        _end(process)
        raise
    return "done" if code == 0 else f"failed with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):  # asked first: pytest then names the test that it was in
        try:
            os.killpg(process.pid, number)
            process.wait(_KILL_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _say(log: IO[str], line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    print(line, file=log, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 1 if a step failed."""
    parser = argparse.ArgumentParser(description="The calls of a GPU run, or all three in a row.")
    parser.add_argument("calls", nargs="*", choices=[*CALLS, []], default=[])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was begun ends too
    out = Path(os.environ.get("OUT", ROOT / "bench" / "results")).absolute()
    out.mkdir(parents=True, exist_ok=True)
    scale, failed = float(os.environ.get("SCALE", "1")), []
    for call in options.calls or CALLS:
        failed += run_call(call, out, scale=scale, rehearse=options.rehearse)
    print(f"== {'FAILED: ' + ', '.join(failed) if failed else 'all done'}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
