"""How long a scan will take, told by a few of its weights, which are read and scored as the scan would."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.chunks import work_of
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.scoring import make_scorer, score_weights

_BUDGET_SECONDS = 10.0
"""Time for the trials; kinds of weights that would take longer are told by their multiply-adds."""


@dataclass(frozen=True)
class Prediction:
    """What a scan will take on this machine as it is now.

    Attributes:
        read_seconds: reading alone.
        compute_seconds: scoring alone.
        tried: kinds of weights (of one shape and format) of which one was timed.
        kinds: all that there are.
    """

    read_seconds: float
    compute_seconds: float
    tried: int
    kinds: int

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.read_seconds, self.compute_seconds)


def predict_scan(plan: ScanPlan, options: ScanOptions) -> Prediction:
    """Time one weight of each kind, the smallest kinds first, and multiply.

    Where one of a kind is typical, the scan takes what is said within a quarter or so: 0.86 to 1.08 times in six trials
    of 12 to 70 s on a machine that others used too. A weight that needs a second method, as those with a few huge
    singular values do, does not tell of the others of its kind, nor they of it.

    Args:
        plan: what is scored.
        options: how.
    """
    kinds: dict[tuple[object, ...], list[WeightPlan]] = {}
    for weight in plan.weights:
        kinds.setdefault((weight.matrix_shape, weight.main.dtype, weight.layout), []).append(weight)
    tried: list[tuple[WeightPlan, ModuleResult]] = []
    compute_seconds = 0.0
    began = time.perf_counter()
    with thread_count(options.threads):
        for members in sorted(kinds.values(), key=lambda members: work_of(members[0])):
            weight = members[0]
            if not tried:
                _score_one(weight, options)  # whoever is first finds everything cold
            seconds = _by_work(weight, tried)
            if time.perf_counter() - began + seconds < _BUDGET_SECONDS:
                tried.append((weight, _score_one(weight, options)))
                seconds = tried[-1][1].compute_seconds
            compute_seconds += len(members) * seconds
    read_seconds = sum(result.read_seconds for _, result in tried)
    return Prediction(
        read_seconds=read_seconds * plan.total_bytes / max(1, sum(weight.nbytes for weight, _ in tried)),
        compute_seconds=compute_seconds,
        tried=len(tried),
        kinds=len(kinds),
    )


def _by_work(weight: WeightPlan, tried: Sequence[tuple[WeightPlan, ModuleResult]]) -> float:
    """Seconds for a weight by those of others: so many a multiply-add of the Gram, and so many one of what follows.

    The two rates are those that miss the others' times least, in relative terms; where that makes one of them negative
    (too few others, or too alike) both are taken to be that of the largest.
    """
    if not tried:
        return 0.0
    works = torch.tensor([_work(other) for other, _ in tried], dtype=torch.float64)
    seconds = torch.tensor([max(result.compute_seconds, 1e-6) for _, result in tried], dtype=torch.float64)
    rates = torch.linalg.lstsq(works / seconds[:, None], torch.ones_like(seconds)[:, None]).solution[:, 0]
    if len(tried) < 2 or not rates.isfinite().all() or rates.min() < 0:
        rates = (seconds[-1] / works[-1].sum()).expand(2)
    return float(torch.tensor(_work(weight), dtype=torch.float64) @ rates)


def _work(weight: WeightPlan) -> tuple[float, float]:
    """Multiply-adds of the Gram matrix, and those of the reduction of it."""
    *rows, columns = weight.matrix_shape or weight.main.shape
    short, long = sorted((math.prod(rows), columns))
    return float(long) * short**2, float(short) ** 3


def _score_one(weight: WeightPlan, options: ScanOptions) -> ModuleResult:
    found: list[ModuleResult] = []
    score_weights([weight], make_scorer(options), options.stream, found.append)
    return found[0]
