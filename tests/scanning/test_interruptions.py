"""Scans that are killed, signalled or run out of disk, as processes of their own."""

from __future__ import annotations

import random
import resource
import signal
import time
from pathlib import Path

import pytest

import spectrum_fast as sf
from spectrum_fast.errors import JournalError

from support.long_scans import end, finished, journal_of, start, wait_for_modules

MODULES = 14
_KILL_SECONDS = 0.7
"""Kills come within so long after the moment that was waited for; on a quiet machine a scan takes about twice that."""


def kill_at_random(model: Path, expected: bytes, folder: Path, kills: int, seed: int) -> int:
    """Scan again and again, killing at random moments, until so many kills have hit; check the disk after each.

    A moment is chosen before the first module of a sitting, or after it; a scan that is complete is begun anew.
    """
    choose = random.Random(seed)  # noqa: S311
    out = folder / "scan.json"
    journal = journal_of(out)
    before: list[str] = []
    killed = sittings = 0
    while killed < kills:
        sittings += 1
        process = start(model, out, "--quiet")
        wait_for_modules(process, journal, choose.choice((0, len(before) + 1)))
        time.sleep(choose.uniform(0, _KILL_SECONDS))
        process.kill()
        returned, _, _ = end(process)
        assert returned in (0, -signal.SIGKILL)
        killed += returned != 0
        if out.exists():  # also if killed between the file and the end: it is whole
            assert out.read_bytes() == expected
            before = finish(model, out, expected, journal)
        elif journal.exists():
            names = finished(journal)
            assert names[: len(before)] == before, "what was finished is still there"
            assert len(names) == len(set(names)), "nothing was scored twice"
            before = names
        else:
            assert not before
    finish(model, out, expected, journal)
    return sittings


def finish(model: Path, out: Path, expected: bytes, journal: Path) -> list[str]:
    """Scan to the end where need be, and clear the table."""
    if journal.exists() or not out.exists():
        sf.scan(str(model), method="svd", threads=1, out=out)
    assert out.read_bytes() == expected
    assert {path.name for path in out.parent.iterdir()} == {"scan.json"}
    out.unlink()
    return []


def test_killed_at_random_points_it_ends_in_the_same_file(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    kill_at_random(deep, uninterrupted, tmp_path, kills=3, seed=1)


@pytest.mark.slow
def test_killed_at_fifty_random_points(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    sittings = kill_at_random(deep, uninterrupted, tmp_path, kills=50, seed=2)
    print(f"50 kills in {sittings} sittings")


def interrupt_twice(model: Path, out: Path) -> int | None:
    """Interrupt a scan, go on, and terminate it; returns how many modules are safe then.

    None if one ended before its signal came, as it may on a machine that is busy with other things.
    """
    count = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(model, out)
        reached = wait_for_modules(process, journal_of(out), count + 1)
        process.send_signal(number)
        returned, stdout, stderr = end(process)
        if returned == 0:
            return None
        assert reached
        before, count = count, len(finished(journal_of(out)))
        assert before < count < MODULES
        assert (returned, stdout) == (code, "")
        *words, last = stderr.splitlines()
        kept = f"{count} finished modules are safe in {journal_of(out)}"
        assert last == f"interrupted: {kept}; the same command goes on from there"
        assert len(words) == (1 if before else 0)
        if before:
            assert words[0].startswith(
                f"going on where an interrupted scan was: {before} of {MODULES} modules are fini"
            )
        assert not out.exists()
    return count


def test_signals_say_what_is_safe_and_how_to_go_on(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    outs = [tmp_path / f"scan-{attempt}.json" for attempt in range(5)]
    counts = ((out, interrupt_twice(deep, out)) for out in outs)
    out, count = next((out, count) for out, count in counts if count is not None)
    scan = sf.scan(str(deep), method="svd", threads=1, out=out)
    assert scan.run["resumed_modules"] == count
    assert out.read_bytes() == uninterrupted


def test_a_full_disk_stops_the_scan_and_loses_nothing(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    """A limit of the file size stands for the disk: writes fail half way in the same manner."""
    out = tmp_path / "scan.json"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    returned, stdout, stderr = end(start(deep, out, "--quiet", preexec=limit))
    assert (returned, stdout) == (2, "")
    kept = finished(journal_of(out))
    assert 2 < len(kept) < MODULES
    assert stderr == (
        f"error: {journal_of(out)}: the journal cannot be written: File too large; {len(kept)} finished modules are "
        "safe in it: make room and rights for it and run the same command again, or do without one (--no-journal)\n"
    )
    assert journal_of(out).read_bytes().endswith(b"}\n"), "no line is left half-written"
    sf.scan(str(deep), method="svd", threads=1, out=out)
    assert out.read_bytes() == uninterrupted


def test_two_scans_into_one_file_are_refused(deep: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    first = start(deep, out, "--quiet")
    assert wait_for_modules(first, journal_of(out), 1)
    first.send_signal(signal.SIGSTOP)  # however slow the machine, it is still at work
    with pytest.raises(JournalError, match="another scan is at work on this journal and its scan file"):
        sf.scan(str(deep), method="svd", threads=1, out=out)
    first.send_signal(signal.SIGCONT)
    assert end(first) == (0, "", "")
    assert out.read_bytes() == uninterrupted
