"""How a scan came about: what decides its scores, under which circumstances they were found, and what its file says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

import torch

from spectrum_fast.measure.ops.dispatch import choose_backend
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.checkpoint.config import finite_only
from spectrum_fast.read.storage import RemoteStamp
from spectrum_fast.read.storage.files import FileStamp
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.version import __version__

_DECIDING = ("criterion", "method", "precision", "tolerance", "include", "exclude", "include_norms", "split_fused")

RELATIONS = ("minus", "plus")
"""How a checkpoint may stand to its base; the keys under which that is described."""

_OWN = ("out", "journal", "progress", "restart", "ray")


def scan_identity(options: ScanOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    """All that decides the scores of this checkpoint, for the journal: another value is another scan.

    The state of each file is part of it, since values can change under an unchanged header.
    """
    plain = stored_options(options)
    return {
        "version": __version__,
        **_state(checkpoint),
        **{key: plain[key] for key in _DECIDING},
        **{key: True for key in ("spectra", "angles") if getattr(options, key)},
    }


def _state(checkpoint: Checkpoint) -> dict[str, Any]:
    """By which it is known again, and that of its base, under its relation to that."""
    stamps = {ref.file.name: ref.stamp for ref in checkpoint.tensors if ref.stamp is not None}
    tags = {
        name: str(stamp) for name, stamp in stamps.items() if isinstance(stamp, RemoteStamp) and stamp.names_content
    }
    return {
        "fingerprint": checkpoint.fingerprint,
        "content": checkpoint.content,
        "tags": tags,
        "files": {name: _describe_stamp(stamp) for name, stamp in stamps.items() if name not in tags},
        **({checkpoint.relation: _state(checkpoint.base)} if checkpoint.base is not None else {}),
    }


SHARED_APART = ("files",)
"""What the identities of processes that score one checkpoint at one place together do not have in common: machines may
have copies of their own, of different age. Their content is the same, and the tags by which a server names it."""
PLACES_APART = ("files", "tags", "content")
"""Nor those of one checkpoint at two places: one may be sampled and the other be known by its tags. That its content is
the same remains to be seen: :func:`spectrum_fast.scanning.content.is_made_of`."""


def common_identity(identity: Mapping[str, Any], apart: Sequence[str]) -> dict[str, Any]:
    """A :func:`scan_identity` without some of its keys, those of its base included."""
    kept = {key: value for key, value in identity.items() if key not in apart}
    return {key: common_identity(value, apart) if key in RELATIONS else value for key, value in kept.items()}


def place_of(source: str | os.PathLike[str]) -> str:
    """Where other processes find a checkpoint."""
    return os.path.abspath(source) if os.path.exists(source) else os.fspath(source)


def files_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """What this machine alone knows of the files: it changes with any change of theirs, and with a mere copy."""
    stamps = {ref.file.name: ref.stamp for ref in checkpoint.tensors}
    known = {
        name: [stamp.device, stamp.inode, stamp.ctime_ns]
        for name, stamp in stamps.items()
        if isinstance(stamp, FileStamp)
    }
    return known if checkpoint.base is None else known | {checkpoint.relation: files_state(checkpoint.base)}


def stored_options(options: ScanOptions) -> dict[str, Any]:
    """The options by which another process scores and merges what this one does: plain values, no paths of this one."""
    kept = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in _OWN}
    for relation in RELATIONS:
        if (base := kept[relation]) is not None:
            kept[relation] = place_of(base)
    return {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in kept.items()}


def scan_settings(options: ScanOptions, threads: int) -> dict[str, Any]:
    """Under which circumstances scores are found: these change no more than their last bits."""
    return {
        "torch": torch.__version__,
        "device": options.device,
        "backend": choose_backend("gram", options.device.partition(":")[0]),
        "threads": threads,
    }


def scan_provenance(
    options: ScanOptions, checkpoint: Checkpoint, plan: ScanPlan, settings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How the scan came about, for its file: what decides the scores, and nothing that passes by, such as times.

    Args:
        options: what was asked for.
        checkpoint: what was scanned.
        plan: what was read of it.
        settings: those under which modules were scored; a value that was not the same for all becomes a list.
    """
    return {
        "tool": "spectrum_fast",
        "version": __version__,
        "torch": _one_or_all(settings, "torch"),
        **_source(checkpoint),
        "config": finite_only(checkpoint.config),
        "notes": list(checkpoint.notes),
        "method": options.method,
        "precision": options.precision,
        "tolerance": options.tolerance,
        "device": _one_or_all(settings, "device"),
        "backend": _one_or_all(settings, "backend"),
        "threads": _one_or_all(settings, "threads"),
        "bytes_read": plan.total_bytes,
    }


def _source(checkpoint: Checkpoint) -> dict[str, Any]:
    """Where it is from and by which it is known again; and the same of its base."""
    base = checkpoint.base
    return {
        "checkpoint": checkpoint.source,
        "fingerprint": checkpoint.fingerprint,
        **({"content": checkpoint.content} if checkpoint.content else {}),
        **({checkpoint.relation: {"model": base.name, **_source(base)}} if base is not None else {}),
    }


def _one_or_all(settings: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = sorted({entry[key] for entry in settings if key in entry})
    return values[0] if len(values) == 1 else values


def _describe_stamp(stamp: Any) -> str:
    """A file's state in words that two sittings can compare; inode and device differ between machines and are left out.

    A stamp of another kind than a local file's must have a ``repr`` that says what identifies its content.
    """
    if isinstance(stamp, FileStamp):
        seconds, nanoseconds = divmod(stamp.mtime_ns, 10**9)
        moment = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{stamp.size_bytes} bytes, changed {moment}.{nanoseconds:09d}Z"
    return str(stamp)
