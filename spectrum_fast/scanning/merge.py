"""Parts of a scan to the scan that one process would have made, byte for byte.

The checkpoint is opened once more, for what its headers say and for cuts in doubt; nothing is scored that a part has.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import JournalError, PartsError, UsageError
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.scanning.content import is_made_of
from spectrum_fast.scanning.journal import Journal, describe_changes
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part, parse_part, share_of
from spectrum_fast.scanning.provenance import PLACES_APART, common_identity, scan_identity
from spectrum_fast.scanning.run import assemble_scan
from spectrum_fast.scanning.scoring import open_and_plan
from spectrum_fast.system import lock
from spectrum_fast.version import __version__
from spectrum_fast.words import list_some

WAIT_SECONDS = 300.0
"""How long parts may stand still, with nobody at work on them, before they are no longer waited for."""
_LOOK_SECONDS = 0.2
_SHOWN = 8
"""Missing parts that an error names one by one."""


def merge_parts(paths: Sequence[str | os.PathLike[str]], *, model: str | None = None) -> tuple[Scan, ScanOptions]:
    """Make one scan of its parts.

    Args:
        paths: the files of the parts, in any order.
        model: where the checkpoint is on this machine; None: where the parts found it.

    Returns:
        The scan that one process would have made, and the options of the parts.

    Raises:
        PartsError: parts are missing or not complete, which the message names with the commands that make them; or they
            are parts of different scans, of different values under one header, or of a checkpoint that is another now.
        JournalError: a file is no part.
        SpectrumFastError: as for :func:`spectrum_fast.scan`.
    """
    if not paths:
        raise UsageError("merge: expected the files of all parts (scan.json.part-*), found none")
    started = time.perf_counter()
    parts = {os.fspath(path): _read_part(path) for path in paths}
    (name, first), *others = parts.items()
    identity = _shared_identity(first.identity)
    for other_name, other in others:
        if changes := describe_changes(identity, _shared_identity(other.identity)):
            raise PartsError(f"{name} and {other_name} are parts of different scans: {changes}; give those of one scan")
    about = first.about
    options = ScanOptions(**{**about["options"], "device": "cpu"})
    source = model or about["model"]
    count = parse_part(first.identity["part"]).count
    with explain_memory(), thread_count(options.threads) as threads:
        checkpoint, plan = open_and_plan(source, options)
        found = {**scan_identity(options, checkpoint), "part": first.identity["part"]}
        if changes := describe_changes(identity, _shared_identity(found)):
            raise PartsError(f"{source}: not what {name} is a part of: {changes}; make all parts again, or say --model")
        for name, part in parts.items():
            digests = {module.name: module.digest for module in part.modules.values() if module.digest}
            if part.modules and not is_made_of(part.identity, digests, checkpoint):
                raise PartsError(
                    f"{name}: scored from other values than {source} holds, under the same header; make this part "
                    "again where the others were made, or give the checkpoint of all of them as --model"
                )
        ledger = Ledger(plan, None, None, started)
        for part in parts.values():
            ledger.adopt(part)
        if not ledger.complete:
            out = Path(name.rpartition(".part-")[0] or "scan.json")
            raise PartsError(_describe_missing(source, about["options"], out, count, ledger))
        run = {"processes": count, "threads": threads}
        return assemble_scan(checkpoint, plan, options, ledger, run), options


def merge_when_made(out: str | os.PathLike[str], count: int) -> Scan:
    """Wait for the parts that other processes make beside this one, and merge them.

    Args:
        out: the scan file that they are parts of.
        count: how many there are.

    Raises:
        PartsError: for :data:`WAIT_SECONDS` they were not complete, did not grow, and nobody was at work on them.
        SpectrumFastError: as for :func:`merge_parts`.
    """
    tried: object = None
    problem: Exception | None = None
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        paths = [path for path in (Part(number, count).path(out) for number in range(count)) if path.exists()]
        state = [(path, path.stat().st_size) for path in paths]
        if any(map(_is_held, paths)):
            deadline = time.monotonic() + WAIT_SECONDS
        elif state != tried:
            try:
                return merge_parts(paths)[0]
            except (PartsError, JournalError) as error:
                problem = error
            tried, deadline = state, time.monotonic() + WAIT_SECONDS
        elif time.monotonic() > deadline:
            raise PartsError(
                f"nobody has worked on the other parts of {out} for {WAIT_SECONDS:.0f} s, which must lie in one folder "
                f"for all processes: {problem}"
            ) from problem
        time.sleep(_LOOK_SECONDS)


def _read_part(path: str | os.PathLike[str]) -> Journal:
    part = Journal.read(path)
    if "part" not in part.identity or "options" not in part.about:
        raise JournalError(f"{path}: expected a part of a scan (scan --part I/N), found the journal of a whole one")
    if part.identity.get("version") != __version__:
        raise PartsError(f"{path}: made by version {part.identity.get('version')}, this is {__version__}; use that one")
    return part


def _shared_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What all parts have in common."""
    kept = common_identity(identity, PLACES_APART)
    part = parse_part(kept.pop("part"))
    return {**kept, "parts": part.count}


def _is_held(path: Path) -> bool:
    """Whether a process is at work on a part."""
    try:
        with open(path, "rb") as file:
            lock(file.fileno(), shared=True)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file any more, or a file system without locks
    return False


def _describe_missing(source: str, stored: Mapping[str, Any], out: Path, count: int, ledger: Ledger) -> str:
    """Which parts lack what, and the commands that make them."""
    missing = []
    for number in range(count):
        names = [weight.name for weight in share_of(ledger.plan, Part(number, count)).weights]
        left = [name for name in names if name not in ledger]
        if left:
            state = "is not there" if len(left) == len(names) else f"lacks {len(left)} of {len(names)} modules"
            missing.append((f"part {number} {state} ({left[0]}...)", f"{number}/{count}"))
    words = list_some([text for text, _ in missing], _SHOWN, between="; ")
    commands = [
        shlex.join(["spectrum-fast", "scan", source, *_arguments(stored), "--part", part, "--out", str(out)])
        for _, part in missing[:_SHOWN]
    ]
    return f"{words}. This makes them:\n" + "\n".join(commands)


def _arguments(stored: Mapping[str, Any]) -> list[str]:
    """The options of a scan as the command line takes them, without those at their defaults."""
    words: list[str] = []
    for field in fields(ScanOptions):
        value = stored.get(field.name, field.default)
        flag = f"--{field.name.replace('_', '-')}"
        if value in (field.default, None, []) or (field.name, value) == ("device", "cpu"):
            continue
        for entry in value if isinstance(value, list) else [value]:
            words += [flag] if entry is True else [flag, str(entry)]
    return words
