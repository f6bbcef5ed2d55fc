"""Mutation testing of scoring, selection and header parsing: ``python tests/mutation/campaign.py`` (``make mutation``).

mutmut changes the modules named under ``[tool.mutmut]`` in pyproject.toml one place at a time, in a copy under
``mutants/``, and runs the tests that reach that place. A mutant that no test notices has survived. The campaign ends
with exit code 1 where fewer than 80 % are noticed, or where a survivor is not in ``survivors.json`` with a reason.
Otherwise, with ``--out``, the figures are written there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MUTANTS = ROOT / "mutants"
REASONS = HERE / "survivors.json"

FEWEST_KILLED = 0.80
LEAST_CPU_SECONDS, TIMES_CPU_SECONDS = 15, 5
"""A mutant run alone counts as endless after the first, for its imports, and this many times what its tests take."""


@dataclass(frozen=True)
class Mutant:
    """One change and what became of it.

    Attributes:
        name: mutmut's name for it; the number in it moves when the function changes.
        module: path of the module.
        verdict: ``killed``, ``timed out`` or ``survived``.
        change: where and what: ``module.function: line -> changed line``.
    """

    name: str
    module: str
    verdict: str
    change: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants tested at the same time")
    parser.add_argument("--again", action="store_true", help="keep what is killed, run survivors and new mutants again")
    parser.add_argument("--report", action="store_true", help="run nothing, judge what mutants/ holds")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return mutmut(options.worker)
    os.chdir(ROOT)
    if not options.report:
        run_mutants(options.children, options.again)
    mutants = read_mutants()
    rows = [count(module, mutants) for module in sorted({mutant.module for mutant in mutants})]
    total = count("all", mutants)
    for row in (*rows, total):
        print(
            "{module:<48} {mutants:>5} mutants {killed:>5} killed {timed_out:>3} timed out {survived:>4} survived "
            "{percent:>6.1f} %".format(**row)
        )
    unexplained = explain(mutants)
    for line in unexplained:
        print(line, file=sys.stderr)
    if total["percent"] < 100 * FEWEST_KILLED:
        print(f"fewer than {FEWEST_KILLED:.0%} of the mutants were noticed", file=sys.stderr)
    if unexplained or total["percent"] < 100 * FEWEST_KILLED:
        return 1
    if options.out:
        write_figures(options.out, rows, total)
    return 0


def mutmut(arguments: list[str]) -> int:
    """The worker: mutmut in this process, which must import the mutated copy and nothing else."""
    # An editable installation finds the package before any path is looked at.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
    sys.argv = ["mutmut", *arguments]
    from mutmut.__main__ import cli

    cli(arguments)
    return 0


def run_mutants(children: int, again: bool) -> None:
    """Make the mutants, test them, and test those in doubt once more, each in a process of its own."""
    survivors = [mutant.name for mutant in read_mutants() if mutant.verdict == "survived"] if again else []
    if not again:
        shutil.rmtree(MUTANTS, ignore_errors=True)
    extension = importlib.util.find_spec("spectrum_fast._native")
    if extension is not None and extension.origin is not None:
        (MUTANTS / "spectrum_fast").mkdir(parents=True, exist_ok=True)
        shutil.copy2(extension.origin, MUTANTS / "spectrum_fast")
    _run_worker("run", "--max-children", str(children))
    if survivors:
        known = {mutant.name for mutant in read_mutants() if mutant.verdict == "survived"}
        names = [name for name in survivors if name in known]
        if names:
            _run_worker("run", "--max-children", str(children), *names)
    early = run_on_import()
    for path, verdicts in _verdicts().items():
        doubtful = [name for name, code in verdicts.items() if _in_doubt(code, name.partition("__mutmut_")[0] in early)]
        for number, name in enumerate(doubtful, start=1):
            print(f"{path}: alone, {number} of {len(doubtful)}: {name}", flush=True)
            verdicts[name] = run_alone(name, every_test=name.partition("__mutmut_")[0] in early)
        if doubtful:
            _keep_verdicts(path, verdicts)


def run_on_import() -> set[str]:
    """Functions, in mutmut's spelling, that importing the mutated modules calls."""
    modules = ", ".join(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in _verdicts())
    code = f"import json, {modules}; from mutmut.state import state; print(json.dumps(sorted(state()._stats)))"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=MUTANTS, env=_alone("stats"), stdout=subprocess.PIPE, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_alone(name: str, every_test: bool = False) -> int:
    """Exit code of the tests of one mutant in a fresh process, limited in processor time and not by the clock.

    Without ``every_test`` these are the tests during which the function was called.
    """
    from mutmut.configuration import config

    stats = json.loads((MUTANTS / "mutmut-stats.json").read_text(encoding="utf-8"))
    tests = stats["tests_by_mangled_function_name"].get(name.partition("__mutmut_")[0], [])
    seconds = sum(stats["duration_by_test"][test] for test in tests)
    if every_test:
        tests = config().pytest_add_cli_args_test_selection
        seconds = sum(stats["duration_by_test"].values())
    if not tests:
        return 33
    limit = LEAST_CPU_SECONDS + int(TIMES_CPU_SECONDS * seconds)
    command = [sys.executable, "-S", "-m", "pytest", "-x", "-q", *config().pytest_add_cli_args, *sorted(tests)]
    done = subprocess.run(
        command,
        cwd=MUTANTS,
        env=_alone(name),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def read_mutants() -> list[Mutant]:
    """Every mutant with its verdict; of a survivor also the change."""
    found = []
    for path, verdicts in _verdicts().items():
        for name, code in verdicts.items():
            verdict = _verdict(code)
            found.append(Mutant(name, path, verdict, _change(name, path) if verdict == "survived" else ""))
    return found


def count(module: str, mutants: list[Mutant]) -> dict[str, Any]:
    """Figures of one module, or of ``all``; ``percent`` were noticed, by a failing test or by their time."""
    verdicts = Counter(mutant.verdict for mutant in mutants if module in ("all", mutant.module))
    noticed = verdicts["killed"] + verdicts["timed out"]
    return {
        "module": module,
        "mutants": verdicts.total(),
        "killed": verdicts["killed"],
        "timed_out": verdicts["timed out"],
        "survived": verdicts["survived"],
        "percent": round(100 * noticed / verdicts.total(), 1),
    }


def explain(mutants: list[Mutant]) -> list[str]:
    """Lines about survivors that ``survivors.json`` has no reason for; reasons without a survivor are printed only."""
    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    explained = Counter(change for group in reasons for change in group["mutants"])
    survived = Counter(mutant.change for mutant in mutants if mutant.verdict == "survived")
    for change in explained:
        if change not in survived:
            print(f"in {REASONS.name}, but killed here: {change}")
    return [f"survived, no reason given in {REASONS.name}: {change}" for change in survived if change not in explained]


def write_figures(path: Path, rows: list[dict[str, Any]], total: dict[str, Any]) -> None:
    """The figures in the form of the other results."""
    sys.path.insert(0, str(ROOT))
    from bench.machine import machine_header
    from bench.results_file import SCHEMA, write_results

    machine = {**machine_header(), "mutmut": metadata.version("mutmut")}
    results = {"schema": SCHEMA, "size": "full", "machine": machine, "rows": [*rows, total]}
    write_results(path, results)


def _run_worker(*arguments: str) -> None:
    command = [sys.executable, __file__, "--worker", *arguments]
    if subprocess.run(command, cwd=ROOT, env=_environment(), check=False).returncode:
        raise SystemExit(f"mutmut stopped: {' '.join(arguments[:3])}")


def _environment() -> dict[str, str]:
    """One thread a child: the children share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _alone(mutant: str) -> dict[str, str]:
    """For ``python -S``, which does not look for an editable installation: the mutated copy, then the packages."""
    packages = [entry for entry in sys.path if entry and entry not in (str(HERE), str(ROOT))]
    return {**_environment(), "MUTANT_UNDER_TEST": mutant, "PYTHONPATH": os.pathsep.join((str(MUTANTS), *packages))}


def _verdicts() -> dict[str, dict[str, int | None]]:
    """Module -> mutant -> exit code of its tests, as mutmut keeps them."""
    files = sorted(MUTANTS.rglob("*.py.meta"))
    kept = {
        file.relative_to(MUTANTS).as_posix().removesuffix(".meta"): json.loads(file.read_text(encoding="utf-8"))
        for file in files
    }
    return {path: content["exit_code_by_key"] for path, content in kept.items() if content["exit_code_by_key"]}


def _keep_verdicts(path: str, verdicts: dict[str, int | None]) -> None:
    file = MUTANTS / f"{path}.meta"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "exit_code_by_key": verdicts}), encoding="utf-8")


def _verdict(code: int | None) -> str:
    if code in (1, 3):
        return "killed"
    return "timed out" if code in (-24, 24, 152) else "survived"


def _in_doubt(code: int | None, on_import: bool) -> bool:
    """Whether the verdict may be the load's or mutmut's.

    That is a time-out, anything strange, and the survival of code that runs on import: mutmut's workers are forked from
    a process that has imported everything before it is told which mutant to be.
    """
    return code not in (0, 1, 3, 33) or (on_import and code == 0)


def _change(name: str, path: str) -> str:
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    lines = get_diff_for_mutant(name, path=Path(path)).splitlines()
    removed, added = (
        " ".join(line[1:].strip() for line in lines if line[:1] == sign and line[:3] != 3 * sign) for sign in "-+"
    )
    function = name.partition("__mutmut_")[0].removeprefix("spectrum_fast.")
    function = function.replace(".xǁ", ".").replace("ǁ", ".").replace(".x_", ".")
    return f"{function}: {removed} -> {added}"


if __name__ == "__main__":
    raise SystemExit(main())
