"""Whether a scan, finished or interrupted, is of the weights that a checkpoint holds now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import JournalError, SelectionError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.read.checkpoint import Checkpoint, open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scanning.provenance import RELATIONS, files_state, scan_identity

_FEW = 16
"""Modules whose bytes are compared where files cannot be sampled."""


def is_scan_of(scan: Scan, source: str | os.PathLike[str] | Checkpoint, *, thorough: bool = False) -> bool | None:
    """Whether a scan was made of the weights of this checkpoint, at this place or another.

    Files must have the same names and headers, and the same bytes in 64 sampled blocks each, which no other fine-tune
    has. Where these are not known of both, because one of them lies behind a server that names the state of its files,
    the digests of a few modules are compared.

    Args:
        scan: its provenance and its modules say what it was made of.
        source: the checkpoint, opened or as for :func:`spectrum_fast.scan`.
        thorough: compare the digests of all modules: every weight that was scored is read, and an edit of a single
            number shows.

    Returns:
        None if the scan does not say: one of a live model, a published one, or one of an older version.

    Raises:
        CheckpointError: the checkpoint cannot be opened or read.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    known = scan.provenance
    if "fingerprint" not in known or known.get("checkpoint", "").startswith("live model"):
        return None
    digests = {record.name: record.digest for record in scan.modules if record.digest}
    return is_made_of(known, digests, checkpoint, thorough=thorough)


def is_made_of(
    known: Mapping[str, Any], digests: Mapping[str, str], checkpoint: Checkpoint, *, thorough: bool = False
) -> bool | None:
    """Whether what is known of some weights is true of a checkpoint's.

    Args:
        known: their ``fingerprint``, and where these are known ``content`` and ``tags``.
        digests: of some of their modules.
        checkpoint: opened.
        thorough: see :func:`is_scan_of`.

    Returns:
        None if it cannot be told.
    """
    if known["fingerprint"] != checkpoint.fingerprint:
        return False
    for relation in known.keys() & RELATIONS:
        digests = {}  # of the bytes of both
        if checkpoint.base is not None and is_made_of(known[relation], {}, checkpoint.base) is False:
            return False
    if known.get("tags") and not thorough and not checkpoint.content:
        stamps = {ref.file.name: str(ref.stamp) for ref in checkpoint.tensors}
        if stamps == known["tags"]:
            return True
    sampled = known.get("content") and checkpoint.content
    if sampled and known["content"] != checkpoint.content:
        return False
    if sampled and not thorough:
        return True
    if not digests:
        return True if sampled else None
    wanted = sorted(digests)[:: 1 if thorough else max(1, len(digests) // _FEW)]
    plans = {
        weight.name: weight
        for split in (False, True)
        for weight in plan_scan(checkpoint, include_norms=True, split=split).weights
    }
    differing = _differing([plans[name] for name in wanted if name in plans], digests, StreamOptions(digests=True))
    return differing is None


def require_scan_of(scan: Scan, checkpoint: Checkpoint, path: object) -> None:
    """Refuse a scan of other weights; one that does not say what it is of is let through.

    Args:
        scan: as read.
        checkpoint: that it is used for.
        path: the scan's file, for messages.

    Raises:
        SelectionError: it is of other weights.
    """
    if is_scan_of(scan, checkpoint) is False:
        raise SelectionError(
            f"{path}: expected a scan of {checkpoint.source}, found one of other weights, {scan.model}; scan this "
            "checkpoint, or give the selection that was made from that scan"
        )


def begin_journal(
    journal: Journal,
    options: ScanOptions,
    checkpoint: Checkpoint,
    plan: ScanPlan,
    *,
    identity: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Begin a journal, or go on with one: what it holds must have been computed from the bytes that are there now.

    Files that this machine knows to be untouched are believed. Else, as after a copy, what is finished is read once
    more and its digests are compared.

    Args:
        journal: entered, not begun.
        options: what is scored and how.
        checkpoint: opened.
        plan: what is scored of it.
        identity: what else must be the same in every sitting.
        about: what else may differ.

    Raises:
        JournalError: it belongs to another scan, or to other values.
    """

    def verify() -> None:
        finished: dict[str, ModuleScore | ScanFailure] = {**journal.modules, **journal.failures}
        digests = {name: record.digest for name, record in finished.items() if record.digest}
        weights = [weight for weight in plan.weights if weight.name in digests]
        differing = _differing(weights, digests, replace(options.stream, device="cpu"))
        if differing is not None:
            raise JournalError(
                f"{journal.path}: {differing} was scored from other values than the checkpoint holds now, under the "
                "same header and times; bring the old files back, or throw the journal away with --restart "
                "(restart=True)"
            )

    identity = {**scan_identity(options, checkpoint), **(identity or {})}
    journal.begin(identity, {"files": files_state(checkpoint), **(about or {})}, verify)


def _differing(weights: Sequence[WeightPlan], digests: Mapping[str, str | None], reading: StreamOptions) -> str | None:
    """The first weight whose bytes have another digest; None if there is none."""
    with stream_weights(weights, reading) as stream:
        for loaded in stream:
            if loaded.digest and loaded.digest != digests[loaded.plan.name]:
                return loaded.plan.name
    return None
