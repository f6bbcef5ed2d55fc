"""A scan in parts: each scores its own share of the weights, wherever and whenever, and knows of no other.

The shares follow from the plan alone, so that every process finds its own. What a part has found is a journal beside
the scan file, ``NAME.part-I-of-N``, which goes on after an interruption like any other; when all parts are there,
:mod:`spectrum_fast.scanning.merge` makes one scan of them.
"""

from __future__ import annotations

import heapq
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.scanning.chunks import cut_chunks, work_of
from spectrum_fast.scanning.content import begin_journal
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.provenance import place_of, stored_options
from spectrum_fast.scanning.scoring import open_and_plan, score_plan
from spectrum_fast.scanning.step import ScanProgress


@dataclass(frozen=True)
class Part:
    """One share of several.

    Attributes:
        number: which one, from 0.
        count: how many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        """As a user writes it, ``0/4``."""
        return f"{self.number}/{self.count}"

    def path(self, out: str | os.PathLike[str]) -> Path:
        """The file of this part of a scan file.

        >>> Part(1, 4).path("scan.json").name
        'scan.json.part-1-of-4'
        """
        target = Path(os.path.realpath(out))
        return target.with_name(f"{target.name}.part-{self.number}-of-{self.count}")


def parse_part(text: str) -> Part:
    """Read ``i/n``.

    Raises:
        UsageError: it is not two whole numbers with ``0 <= i < n``.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise UsageError(f"part: expected I/N, counted from 0 (0/4, 1/4, 2/4 and 3/4 make four), found {text!r}")
    return Part(int(found[1]), int(found[2]))


def share_of(plan: ScanPlan, part: Part) -> ScanPlan:
    """The weights of one part: chunks of neighbours, the largest first, each to the part that has least so far."""
    loads = [(0.0, number) for number in range(part.count)]
    own: set[str] = set()
    for chunk in cut_chunks(plan.weights, part.count):
        load, number = loads[0]
        heapq.heapreplace(loads, (load + sum(map(work_of, chunk)), number))
        if number == part.number:
            own.update(weight.name for weight in chunk)
    return replace(plan, weights=tuple(weight for weight in plan.weights if weight.name in own))


def scan_part(
    source: str | os.PathLike[str],
    options: ScanOptions,
    part: Part,
    journal: Journal,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Ledger:
    """Score one part.

    Args:
        source: the checkpoint.
        options: what to score and how, for all parts the same.
        part: which share.
        journal: entered, not begun, at :meth:`Part.path`; it is what remains of the part.
        progress: called at the beginning and after every weight.

    Returns:
        What the part has come to.

    Raises:
        JournalError: the file belongs to another scan or part, or cannot be written.
        SpectrumFastError: as for :func:`spectrum_fast.scan`.
    """
    started = time.perf_counter()
    checkpoint, plan = open_and_plan(source, options)
    about = {"model": place_of(source), "options": stored_options(options)}
    begin_journal(journal, options, checkpoint, plan, identity={"part": str(part)}, about=about)
    share = share_of(plan, part)
    ledger = Ledger(share, journal, progress, started)
    with explain_memory(), thread_count(options.threads):
        score_plan(share, options, ledger)
    checkpoint.require_unchanged()
    return ledger
