"""Commands that write, killed everywhere: at every system call that changes a file, and at random times.

Each command runs over an older output. It is struck by SIGINT, SIGTERM or SIGKILL, at an exact system call, in the
middle of a write, or after a time drawn by chance. Then no file may be anything but the older one or the new one,
whole; and the same command, run again, must end with the files of an undisturbed run and leave nothing else behind.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from support.faults import TORN, rule
from support.forked import Ended, Forked

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
IN_ORDER = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit codes of a command that a signal ends and that tidies up first."""


OUTCOMES = ("struck", "dropped inside a library", "ended before the signal took effect")
"""Of a strike; all three keep the promises."""


@dataclass(frozen=True)
class Task:
    """One command that writes into a folder.

    Attributes:
        name: for reports.
        arguments: of the command line, for an output folder.
        older: makes the older output in a folder; None leaves it empty.
        whole: the output is a folder that appears at once.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    older: Callable[[Path], None] | None = None
    whole: bool = False


@dataclass(frozen=True)
class Strike:
    """One kill: at a system call (``call``), in the middle of a write (``torn``), or after ``seconds``."""

    task: str
    number: signal.Signals
    call: int = -1
    torn: bool = False
    seconds: float = 0.0

    @property
    def moment(self) -> str:
        return "at a random time" if self.call < 0 else "in the middle of a write" if self.torn else "at a system call"


@dataclass
class Kills:
    """The campaign; ``counts`` says what was done so far.

    Args:
        forked: runs the commands.
        folder: an empty one for models, outputs and scans.
    """

    forked: Forked
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.tasks = {task.name: task for task in _tasks(self.forked, self.folder)}
        self._undisturbed: dict[str, tuple[dict[str, bytes], float, tuple[int, int]]] = {}

    def plan(self, *, timed: int, tasks: Sequence[str] = (), seed: int = 1) -> list[Strike]:
        """Every call of the commands for each signal, every write torn, and ``timed`` random times of the scans."""
        names = list(tasks or self.tasks)
        found = []
        for name in names:
            changes, writes = self._run_undisturbed(name)[2]
            found += [Strike(name, number, call) for number in SIGNALS for call in range(changes)]
            found += [Strike(name, signal.SIGKILL, call, torn=True) for call in range(writes)]
        draw = random.Random(seed)
        scans = [name for name in names if name.startswith("scan")]
        for turn in range(timed):
            name = scans[turn % len(scans)]
            seconds = draw.uniform(0, self._run_undisturbed(name)[1])
            found.append(Strike(name, SIGNALS[turn // len(scans) % 3], seconds=seconds))
        return found

    def strike(self, strike: Strike) -> Ended:
        """Run the command, kill it, hold it to the promises; AssertionError says which one it broke."""
        task = self.tasks[strike.task]
        expected = self._run_undisturbed(task.name)[0]
        out = self._fresh(task)
        older = _contents(out)
        error = (TORN if strike.torn else 0) - strike.number
        call = "write" if strike.torn else "change"
        rules = rule(call, f"/{out.name}/", error, skip=strike.call, times=1) if strike.call >= 0 else ""
        kill = None if rules else strike.number
        ended = self.forked.run(task.arguments(out), rules=rules, kill=kill, after_seconds=strike.seconds)
        struck = ended.code != 0
        # Python drops a KeyboardInterrupt that comes inside a library's compiled callback, and says so.
        dropped = ended.code == 0 and ended.stderr.startswith("Exception ignored in")
        assert ended.code in (0, -strike.number, IN_ORDER.get(strike.number)), (strike, ended)
        assert dropped or "Traceback" not in ended.stderr, (strike, ended)
        _check_whole(out, older, expected, task, strike)
        if strike.call >= 0 and ended.code in IN_ORDER.values():
            assert not [path for path in out.iterdir() if path.suffix == ".tmp"], (strike, "nothing is left behind")
        self._run_again(task, out, expected, strike)
        self.counts[f"{strike.task} {strike.moment} by {strike.number.name}"] += struck
        self.counts[OUTCOMES[0] if struck else OUTCOMES[1] if dropped else OUTCOMES[2]] += 1
        return ended

    def _run_again(self, task: Task, out: Path, expected: dict[str, bytes], strike: Strike) -> None:
        if not (task.whole and _contents(out) == expected):  # a folder that is complete is not written over
            again = self.forked.run(task.arguments(out))
            assert again.code == 0, (strike, again)
        assert _contents(out, hidden=True) == expected, (strike, sorted(_contents(out, hidden=True)))

    def _run_undisturbed(self, name: str) -> tuple[dict[str, bytes], float, tuple[int, int]]:
        """Files, seconds and numbers of system calls (all that change something, writes) of an undisturbed run."""
        if name not in self._undisturbed:
            out = self._fresh(self.tasks[name])
            ended = self.forked.run(self.tasks[name].arguments(out), watch=f"/{out.name}/")
            assert ended.code == 0, ended
            assert ended.calls, ended
            self._undisturbed[name] = _contents(out, hidden=True), ended.seconds, ended.calls
        return self._undisturbed[name]

    def _fresh(self, task: Task) -> Path:
        out = self.folder / "output"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if task.older is not None:
            task.older(out)
        return out


def _check_whole(out: Path, older: dict[str, bytes], expected: dict[str, bytes], task: Task, strike: Strike) -> None:
    """Every file is the older one or the new one; a journal's lines are whole, save the last."""
    now = _contents(out)
    for name in {*older, *expected, *now}:
        assert now.get(name) in (older.get(name), expected.get(name)), (strike, name, "is neither old nor new")
    if task.whole:
        assert now in (older, expected), (strike, sorted(now), "half of a folder")
    for path in out.iterdir():
        if path.name.endswith(".journal"):
            *lines, _ = path.read_bytes().split(b"\n")
            assert all(line[:8] == b"%08x" % zlib.crc32(line[9:]) for line in lines), (strike, "a torn line")
        elif path.name.startswith("."):
            assert path.suffix == ".tmp", (strike, path.name)


def _contents(folder: Path, *, hidden: bool = False) -> dict[str, bytes]:
    """Relative name -> bytes of every file; what lies under a hidden name only where asked for."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if hidden or not name.startswith(".")}


def _tasks(forked: Forked, folder: Path) -> Iterator[Task]:
    model = folder / "model"
    _write_model(model)
    scan, mp = folder / "scan.json", folder / "mp.json"
    assert forked.run([*_scan(model), "--out", scan]).code == 0
    assert forked.run([*_scan(model), "--out", mp, "--criterion", "mp"]).code == 0
    begun = folder / "begun"
    begun.mkdir()
    stop = rule("change", "/begun/", -signal.SIGKILL, skip=8, times=1)
    assert forked.run([*_scan(model), "--out", begun / "scan.json"], rules=stop).code == -signal.SIGKILL
    journal = (begun / ".scan.json.journal").read_bytes()
    assert journal.count(b'{"module":') >= 2, "a scan that was interrupted half way"

    def scan_file(out: Path) -> None:
        (out / "scan.json").write_text("an older scan")

    def interrupted(out: Path) -> None:
        scan_file(out)
        (out / ".scan.json.journal").write_bytes(journal)

    def library(out: Path) -> None:
        for name in ("scan_tiny.json", "snr_results_tiny.json"):
            (out / name).write_text("{}")

    yield Task("scan", lambda out: [*_scan(model), "--out", out / "scan.json"], scan_file)
    yield Task("scan resumed", lambda out: [*_scan(model), "--out", out / "scan.json"], interrupted)
    yield Task("scan without journal", lambda out: [*_scan(model), "--no-journal", "--out", out / "scan.json"])
    yield Task(
        "select",
        lambda out: ["select", scan, "-o", out / "selection.json"],
        lambda out: (out / "selection.json").write_text("an older selection") and None,
    )
    yield Task("scans add", lambda out: ["scans", "add", out, scan, "--model", "tiny", "--replace"], library)
    yield Task("report", lambda out: ["report", scan, "-o", out / "report.html"])
    yield Task(
        "laser",
        lambda out: ["laser", model, "--scan", mp, "--top-percent", 50, "--out", out / "low"],
        whole=True,
    )


def _scan(model: Path) -> list[object]:
    return ["scan", model, "--quiet", "--threads", 1]


def _write_model(folder: Path) -> None:
    """Two shards of three matrices, each with two values above the noise."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    for shard in range(2):
        weights = {}
        for layer in range(3 * shard, 3 * shard + 3):
            W = torch.randn(64, 96, generator=generator)
            W[0] *= 9
            W[1] *= 5
            weights[f"model.layers.{layer}.mlp.up_proj.weight"] = W
        save_file(weights, folder / f"model-{shard + 1:05d}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def summary(kills: Kills) -> dict[str, Any]:
    """The counts, for a result file."""
    struck = {name: count for name, count in sorted(kills.counts.items()) if " by SIG" in name and count}
    return {
        "kills": kills.counts[OUTCOMES[0]],
        "dropped_inside_a_library": kills.counts[OUTCOMES[1]],
        "ended_before_the_signal_took_effect": kills.counts[OUTCOMES[2]],
        "broken_promises": 0,
        "struck": struck,
    }
