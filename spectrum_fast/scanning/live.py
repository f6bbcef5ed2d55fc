"""Scan a live model in place: ``sf.scan(model)`` inside a training run, between two steps.

Parameters are scored where they are, one at a time and without a copy of the model; what is partitioned over ranks is
brought together one parameter at a time. Names, experts, quantised layers and skipped tensors are those of a scan of
the model's checkpoint. Nothing of the model changes: not a value, not a flag, not the random state.

Under ZeRO-3 or FSDP2 every rank has to call it (gathering is collective). The ranks gather as many parameters as there
are ranks, each keeps a copy of one, and they are scored at the same time; all ranks end with the same scan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby

import torch
from torch import Tensor, nn

from spectrum_fast.measure.scoring.records import SkippedTensor
from spectrum_fast.read.checkpoint import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import LoadedWeight
from spectrum_fast.scanning.live_model import LiveModel
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scanning.results import ModuleResult, failed
from spectrum_fast.scanning.scorers import Scorer


def plan_live(model: nn.Module, options: ScanOptions) -> tuple[LiveModel, ScanPlan]:
    """Describe a live model and decide what of it is scored; see :func:`spectrum_fast.scanning.plan.plan_scan`.

    Raises:
        UsageError: nothing is left to score, or names are not unique once wrappers are taken off.
        SelectionError: a pattern matches no tensor.
    """
    live = LiveModel(model)
    plan = plan_scan(
        live.checkpoint,
        include=options.include,
        exclude=options.exclude,
        include_norms=options.include_norms,
        known_ties=live.ties,
        split=options.split_fused,
    )
    adapters = tuple(SkippedTensor(name, "belongs to an adapter (PEFT)") for name in live.adapters)
    message = "expected values, found the meta device (offloaded); load the model in full"
    absent = [failed(weight, "unsupported", message) for weight in plan.weights if live.is_absent(weight.main.name)]
    return live, replace(
        plan,
        weights=tuple(weight for weight in plan.weights if not live.is_absent(weight.main.name)),
        refused=(*plan.refused, *absent),
        skipped=(*plan.skipped, *adapters),
    )


def score_live(
    live: LiveModel,
    plan: ScanPlan,
    scorer: Scorer,
    device: str,
    deliver: Callable[[ModuleResult], None],
) -> None:
    """Score every weight of the plan, shared out among the ranks where the model is partitioned over them.

    Args:
        live: the model.
        plan: what to score.
        scorer: what turns weights into records, at once or in batches; is closed.
        device: where it wants them; what lies elsewhere is copied, one weight at a time.
        deliver: takes what each weight came to, the same on every rank; with several ranks once all have finished their
            share of a round.
    """
    rank, ranks = _ranks(live)
    autocast_off = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with closing(scorer), torch.no_grad(), autocast_off[0], autocast_off[1]:
        parameters = [list(group) for _, group in groupby(plan.weights, key=lambda weight: weight.main.name)]
        for begin in range(0, len(parameters), ranks):
            turn = parameters[begin : begin + ranks]
            if ranks == 1:
                with live.whole(turn[0][0].main.name):
                    for loaded in _load(live, turn[0], device, copy=False):
                        for result in scorer.add(loaded):
                            deliver(result)
            else:
                own = _take_own(live, turn, rank, device)
                mine = [result for loaded in own for result in scorer.add(loaded)]
                found: list[list[ModuleResult]] = [[] for _ in range(ranks)]
                torch.distributed.all_gather_object(found, [*mine, *scorer.finish()])
                for result in chain.from_iterable(found):  # by rank, the order of the turn's parameters
                    deliver(result)
        for result in scorer.finish():
            deliver(result)


def _take_own(live: LiveModel, turn: Sequence[Sequence[WeightPlan]], rank: int, device: str) -> Iterator[LoadedWeight]:
    """Gather every parameter of the turn with the other ranks; give this rank's, copied."""
    own: list[LoadedWeight] = []
    for place, weights in enumerate(turn):
        with live.whole(weights[0].main.name):
            own += _load(live, weights, device, copy=True, keep=place == rank)
    while own:
        yield own.pop(0)


def _load(
    live: LiveModel, weights: Sequence[WeightPlan], device: str, *, copy: bool, keep: bool = True
) -> Iterator[LoadedWeight]:
    """The tensors of weights that share a parameter, on a device; ``keep=False`` only takes part in the gathering."""
    started = time.perf_counter()
    whole = live.tensor(weights[0].main.name)
    companions: dict[str, Tensor] = {}
    for ref in {ref.name: ref for weight in weights for ref in weight.companions.values()}.values():
        with live.whole(ref.name):
            companions[ref.name] = live.tensor(ref.name).to(device, copy=live.is_partitioned)
    for weight in weights if keep else ():
        main = _part(whole, weight.main, weight).to(device, copy=copy)
        parts = {role: _part(companions[ref.name], ref, weight) for role, ref in weight.companions.items()}
        seconds = time.perf_counter() - started
        yield LoadedWeight(weight, main, parts, read_seconds=seconds, wait_seconds=seconds)
        started = time.perf_counter()


def _part(tensor: Tensor, ref: TensorRef, weight: WeightPlan) -> Tensor:
    """The expert of a fused tensor that the reference has been cut to."""
    return tensor if weight.expert is None or tuple(tensor.shape) == ref.shape else tensor[weight.expert]


def _ranks(live: LiveModel) -> tuple[int, int]:
    """This rank and how many there are; (0, 1) where the model is not partitioned."""
    distributed = torch.distributed
    if not live.is_partitioned or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
