"""A checkpoint opened, and the loop of a scan: read a weight, score it, hand over what it came to, forget it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.device_check import require_right_answers
from spectrum_fast.read.checkpoint import Checkpoint, open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, StreamStatistics, WeightStream, stream_weights
from spectrum_fast.scanning.difference import plan_difference, plan_sum
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scanning.provenance import scan_settings
from spectrum_fast.scanning.results import ModuleResult, failure_of
from spectrum_fast.scanning.scorers import Scorer, Together


def open_and_plan(source: str | os.PathLike[str], options: ScanOptions) -> tuple[Checkpoint, ScanPlan]:
    """Open a checkpoint, with its base where there is one, and decide what of it is scored."""
    checkpoint, base = _open(source, options), options.minus or options.plus
    is_adapter = "peft_type" in (checkpoint.config or {})
    if base is not None and is_adapter != (base == options.plus):
        raise UsageError(
            f"{source}: is {'an adapter, a difference by itself' if is_adapter else 'no adapter'}; "
            + ("scan it alone, or with --plus its base as one model" if is_adapter else "leave out --plus")
        )
    if base is not None:
        checkpoint = replace(checkpoint, base=_open(base, options), relation="minus" if options.minus else "plus")
    planning = partial(plan_scan, include_norms=options.include_norms, split=options.split_fused)
    patterns: dict[str, Any] = {"include": options.include, "exclude": options.exclude}
    if checkpoint.base is None:
        plan = planning(checkpoint, **patterns)
    elif is_adapter:
        plan = plan_sum(checkpoint, planning, **patterns)
        checkpoint = replace(checkpoint, config=checkpoint.base.config)
    else:
        plan = plan_difference(checkpoint, planning, angles=options.angles, **patterns)
    options.require_buffer(plan)
    return checkpoint, plan


def _open(source: str | os.PathLike[str], options: ScanOptions) -> Checkpoint:
    checkpoint = open_checkpoint(source, no_store=options.no_store, adapters=True)
    _ = checkpoint.content  # sampled now, to be compared at the end
    return checkpoint


def make_scorer(options: ScanOptions, plans: Iterable[WeightPlan] = ()) -> Scorer:
    """What scores the weights of these plans on the device of these options; to be closed.

    A device that computes known spectra wrong ends the scan before any weight is scored: while it is asked, which
    compiles its kernels, the first weights are read.
    """
    plans = tuple(plans)
    if plans and all(plan.in_factors for plan in plans):
        return Scorer(options)
    on_cpu = options.device == "cpu"
    prepare = None if on_cpu else partial(require_right_answers, options.device, find_criterion(options.criterion))
    if options.method == "auto" and (on_cpu or options.precision == "auto"):
        threads = torch.get_num_threads() if on_cpu else None
        return Together(options, prepare=prepare, plans=plans, threads=threads)
    if prepare is not None:
        prepare()
    return Scorer(options)


def score_plan(plan: ScanPlan, options: ScanOptions, ledger: Ledger) -> Mapping[str, Any]:
    """Score what is left of a plan, in file order, into a ledger; returns what reading it took."""
    left = [weight for weight in plan.weights if weight.name not in ledger]
    settings = scan_settings(options, torch.get_num_threads())
    scorer = make_scorer(options, left)
    return asdict(score_weights(left, scorer, options.stream, lambda result: ledger.record(result, settings)))


def score_weights(
    weights: Iterable[WeightPlan], scorer: Scorer, options: StreamOptions, deliver: Callable[[ModuleResult], None]
) -> StreamStatistics:
    """Read weights in their order, and deliver what each came to; returns what reading them took. Closes the scorer."""
    with closing(scorer), stream_weights(weights, options) as stream:
        for result in _score_all(stream, scorer):
            deliver(result)
    return stream.statistics


def _score_all(stream: WeightStream, scorer: Scorer) -> Iterator[ModuleResult]:
    while True:
        try:
            loaded = next(stream, None)
        except Exception as error:
            if stream.failed is None:
                yield from scorer.finish()  # what was read is kept, whatever ends the scan
                raise
            yield ModuleResult(failure_of(stream.failed, error))
            continue
        if loaded is None:
            break
        yield from scorer.add(loaded)
    yield from scorer.finish()
