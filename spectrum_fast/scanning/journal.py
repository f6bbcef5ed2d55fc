"""The journal of a scan: every finished module on disk, so that an interrupted scan goes on where it was.

A text file that is only ever appended to. Each line is the CRC-32 of its content (8 hexadecimal digits), a blank, and
one JSON object; the first is the header, which says what is scanned and how::

    4c1d0a7e {"journal": 1, "identity": {"fingerprint": ..., "method": ..., ...}, "about": {"files": ..., ...}}
    90be2f11 {"settings": {"threads": 8, ...}}
    1f0c33a8 {"module": {"name": ..., ...}}        as in the scan file, and all singular values where they are kept
    77e1b2c4 {"failure": {"name": ..., ...}}
    03d4a1b9 {"problem": {"name": ..., ...}, "traceback": "..."}

A problem is a failure that is no property of the tensor (a fault of this program, no memory): it is kept for whoever
looks into it, and its module is tried again by the next sitting. A sitting that is about something else than the one
before (files that this machine knows in another state, another place) says so in a line of its own, ``{"about": ...}``.

A line is handed to the system as soon as its module is finished, so that a killed process loses nothing; it is flushed
to the disk about once a second, so that a power loss takes little more than the last second. A line that was torn, by
whatever, fails its check and is passed over: its module is scored again. Other programs are kept out by a lock on the
file (``flock``), which ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from spectrum_fast.checks import OBJECT
from spectrum_fast.choose.selection.formats.scan_file import module_entry
from spectrum_fast.errors import JournalError
from spectrum_fast.measure.scoring.json_fields import Place, entry_of
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.scoring.stored_spectra import from_text, to_text
from spectrum_fast.system import NO_WAIT, PRIVATE, lock
from spectrum_fast.words import list_some

SCHEMA = 1
"""Version of the layout; the only one that is read."""

Settings = Mapping[str, Any]
"""What may change between two sittings of one scan, and changes no more than the last bits: threads, versions."""

PROBLEMS = frozenset({"error", "memory"})
"""Kinds of failure that are no property of the tensor."""

_SYNC_SECONDS = 1.0
"""Time between two flushes to the disk, at least."""
_SYNC_SHARE = 20
"""A flush is made no sooner than this many times the last one's duration: 5 % of the time at most."""
_TORN_AT_BIRTH = re.compile(rb'([0-9a-f]{0,8}|[0-9a-f]{8} (\{("(j(o(u(r(n(a(l("[^\0\n]*)?)?)?)?)?)?)?)?)?)?)\0*')
"""What a header can look like whose writing was cut short."""


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Where the journal of a scan file lies: beside the file itself, hidden, whatever link led there.

    >>> journal_path("/tmp/scan.json").name
    '.scan.json.journal'
    """
    target = Path(os.path.realpath(out))
    return target.with_name(f".{target.name}.journal")


@dataclass(eq=False)
class Findings:
    """Finished modules, each once.

    Attributes:
        modules: name -> score.
        failures: name -> failure.
        settings: under which those were found, each once, in the order in which they came.
    """

    modules: dict[str, ModuleScore] = field(default_factory=dict)
    failures: dict[str, ScanFailure] = field(default_factory=dict)
    settings: list[Settings] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of finished modules, scored or failed."""
        return len(self.modules) + len(self.failures)

    def __contains__(self, name: str) -> bool:
        """Whether this module is finished."""
        return name in self.modules or name in self.failures

    def keep(self, record: ModuleScore | ScanFailure, *settings: Settings) -> None:
        """Take in what is not finished yet."""
        if isinstance(record, ModuleScore):
            self.modules[record.name] = record
        else:
            self.failures[record.name] = record
        self.settings += [entry for entry in settings if entry not in self.settings]


class Journal(Findings):
    """One journal, locked while the context is open; what is finished is what it holds.

    Args:
        path: the file; made if it is not there. Its folder must exist.
        restart: throw away what an earlier scan left in it.

    Attributes:
        path: as given.
        problems: name -> failure that is to be tried again: of this sitting or, by :meth:`read`, of all.
        identity: what is scanned, and how.
        about: what else :meth:`begin` was told.

    Raises:
        JournalError: on entering: another scan holds it, it is no journal, or it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, restart: bool = False) -> None:
        super().__init__()
        self.path = Path(path)
        self.problems: dict[str, ScanFailure] = {}
        self.identity: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self._restart = restart
        self._descriptor = -1
        self._length = 0
        self._current: Settings | None = None
        self._synced, self._next_sync = True, 0.0
        self._ended = False

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Journal:
        """What a journal holds by now, whoever is at work on it; nothing of it is changed, and nothing can be appended.

        Raises:
            JournalError: it is none, or cannot be read.
        """
        journal = cls(path)
        try:
            data = journal.path.read_bytes()
        except OSError as cause:
            raise JournalError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
        if not journal._parse(data):
            raise JournalError(f"{path}: expected the journal of a scan, found an empty file")
        return journal

    def __enter__(self) -> Journal:
        try:
            self._descriptor = self._open_locked()
            self._read()
        except BaseException as cause:
            self._close()
            if isinstance(cause, OSError):
                raise self._cannot("opened", cause) from cause
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor < 0:
            return
        if not len(self) and not self.problems:
            with contextlib.suppress(OSError):
                self.path.unlink()  # nothing in it to go on from
        else:
            with contextlib.suppress(OSError):
                os.fdatasync(self._descriptor)
        self._close()

    def begin(
        self,
        identity: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
        verify: Callable[[], None] = lambda: None,
    ) -> None:
        """Say what is scanned: an empty journal takes it as its header, another must have the same.

        Args:
            identity: all that decides the scores and which modules there are; plain JSON values.
            about: what may differ from sitting to sitting; likewise. None: nothing.
            verify: called if its ``files`` are not those of the last sitting: makes sure that what is finished holds
                all the same, or raises.

        Raises:
            JournalError: the journal was begun for something else, or cannot be written.
        """
        wanted, told = json.loads(json.dumps(identity)), json.loads(json.dumps(about or {}))
        if not self.identity or (self.identity != wanted and (self._ended or not len(self))):
            self.modules, self.failures, self.settings, self._current = {}, {}, [], None
            os.ftruncate(self._descriptor, 0)
            self._length = 0
            self._append_line({"journal": SCHEMA, "identity": wanted, "about": told})
            self.identity, self.about = wanted, told
        elif changes := describe_changes(self.identity, wanted):
            raise JournalError(
                f"{self.path}: this journal of an interrupted scan belongs to another one: {changes}. "
                f"Go on with what it was begun with, or throw its {len(self)} finished modules away with --restart "
                "(restart=True)"
            )
        if self.about.get("files") != told.get("files"):
            verify()
        if self.about != told:
            self._append_line({"about": told})
            self.about = told
        self.sync()

    def append(self, record: ModuleScore | ScanFailure, settings: Settings) -> None:
        """Keep one finished module; what is finished already stays as it is.

        Args:
            record: its score, or why it has none.
            settings: under which it was found.

        Raises:
            JournalError: the line cannot be written (disk full, quota, device gone); the journal holds all lines before
                it, whole.
        """
        if record.name in self:
            return
        if settings != self._current:
            self._append_line({"settings": dict(settings)})
            self._current = settings
        if isinstance(record, ScanFailure) and record.kind in PROBLEMS:
            self._append_line({"problem": entry_of(record), "traceback": record.traceback})
            self.problems[record.name] = record
        else:
            is_score = isinstance(record, ModuleScore)
            self._append_line({"module": _module_line(record)} if is_score else {"failure": entry_of(record)})
            self._take_record(record)
        if time.monotonic() >= self._next_sync:
            self.sync()

    def sync(self) -> None:
        """Flush to the disk what is not there yet.

        Raises:
            JournalError: the disk does not take it.
        """
        if self._synced:
            return
        started = time.monotonic()
        try:
            os.fdatasync(self._descriptor)
        except OSError as cause:
            raise self._cannot("flushed to the disk", cause) from cause
        now = time.monotonic()
        self._synced, self._next_sync = True, now + max(_SYNC_SECONDS, _SYNC_SHARE * (now - started))

    def finish(self) -> None:
        """Let go of the file, for the scan is safe elsewhere, and delete it.

        With problems in it, it stays for whoever looks into them. The same scan then tries those modules again, and any
        other one replaces it.

        Raises:
            JournalError: it cannot be deleted, or written.
        """
        if self.problems:
            self._append_line({"ended": True})
            self.sync()
        else:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as cause:
                raise self._cannot("deleted", cause) from cause
        self._close()

    def _open_locked(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | PRIVATE | NO_WAIT, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise JournalError(f"{self.path}: expected a regular file for the journal; choose another path")
                self._lock(descriptor)
                # Whoever held the lock before may have finished and deleted the file that is open here.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(self.path), os.fstat(descriptor)):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            lock(descriptor)
        except BlockingIOError:
            raise JournalError(
                f"{self.path}: another scan is at work on this journal and its scan file; wait for it to end, or "
                "choose another --out"
            ) from None
        except OSError as cause:
            # A file system without locks: two scans at once would then only do work twice.
            if cause.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise

    def _read(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            data = file.read()
        if not self._parse(data):
            os.ftruncate(self._descriptor, 0)
            return
        self._length = len(data)
        if data[-1:] != b"\n":
            self._write(b"\n")  # ends a torn line, so that the next one is whole
        self._current = None  # each sitting says anew under which settings it works
        self.problems = {}

    def _parse(self, data: bytes) -> bool:
        """Take what the file holds; False if there is nothing to go on from."""
        lines = [_check_line(line) for line in data.split(b"\n")]
        entries = [entry for entry in lines if entry is not None]
        if not entries and not _TORN_AT_BIRTH.fullmatch(data):
            raise JournalError(
                f"{self.path}: expected the journal of a scan, found something else, which stays as it is; "
                "move it away, or choose another --out"
            )
        if self._restart or not entries:
            return False
        header = entries[0]
        if lines[0] is None or header.get("journal") != SCHEMA or not isinstance(header.get("identity"), dict):
            raise JournalError(
                f"{self.path}: expected a journal of version {SCHEMA}, whose first line says what is scanned, found "
                f"{'a damaged one' if lines[0] is None else 'another'}; scan anew with --restart (restart=True)"
            )
        self.identity, self.about = header["identity"], header.get("about", {})
        for number, entry in enumerate(lines[1:], start=2):
            if entry is not None:
                self._take(Place(str(self.path), JournalError, f"line {number}"), entry)
        return True

    def _take(self, place: Place, entry: dict[str, Any]) -> None:
        if "about" in entry:
            self.about = place.read(entry, "about", OBJECT)
        elif "settings" in entry:
            self._current = place.read(entry, "settings", OBJECT)
        elif "module" in entry:
            self._take_record(_module_of(place, place.read(entry, "module", OBJECT)))
        elif "failure" in entry:
            self._take_record(place.read_record(ScanFailure, place.read(entry, "failure", OBJECT)))
        elif "problem" in entry:
            problem = place.read_record(ScanFailure, place.read(entry, "problem", OBJECT))
            self.problems[problem.name] = problem
        self._ended = "ended" in entry  # until a later sitting adds to it

    def _take_record(self, record: ModuleScore | ScanFailure) -> None:
        if record.name not in self:
            self.problems.pop(record.name, None)
            self.keep(record, self._current or {})

    def _append_line(self, entry: dict[str, Any]) -> None:
        content = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode()
        self._write(b"%08x %s\n" % (zlib.crc32(content), content))

    def _write(self, data: bytes) -> None:
        """All of it or, as far as that can be had, nothing."""
        self._synced = False
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as cause:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
            raise self._cannot("written", cause) from cause
        self._length += len(data)

    def _cannot(self, done: str, cause: OSError) -> JournalError:
        kept = f"; {len(self)} finished modules are safe in it" if len(self) else ""
        return JournalError(
            f"{self.path}: the journal cannot be {done}: {cause.strerror or cause}{kept}: make room and rights for it "
            "and run the same command again, or do without one (--no-journal)"
        )

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _check_line(line: bytes) -> dict[str, Any] | None:
    """The object of a line, or None if the line is not whole."""
    checksum, _, content = line.partition(b" ")
    if len(checksum) != 8 or checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        entry = json.loads(content)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def describe_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words what differs between two identities; empty if nothing does."""
    now = json.loads(json.dumps(now))
    changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return "; ".join(_describe_change(key, was.get(key), now.get(key)) for key in changed)


def _describe_change(key: str, was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        changed = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        first = changed[0]
        return f"{key} {list_some(changed, 1)} changed: was {_show(was.get(first))}, is {_show(now.get(first))}"
    return f"{key} was {_show(was)}, is {_show(now)}"


def _show(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _module_line(record: ModuleScore) -> dict[str, Any]:
    kept = record.singular_values
    return module_entry(record) | ({} if kept is None else {"singular_values": to_text(kept)})


def _module_of(place: Place, entry: dict[str, Any]) -> ModuleScore:
    found = place.read_record(ModuleScore, entry)
    kept = entry.get("singular_values")
    return found if kept is None else replace(found, singular_values=from_text(kept))
