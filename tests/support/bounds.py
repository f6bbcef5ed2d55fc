"""Stated error bounds held to float64 SVD: one singular value decomposition a matrix, every engine against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.choose.selection.fused import merge_parts
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.engine import SMALL_WORK, compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics, Spectrum

CRITERIA = ("spectrum", "mp")


@dataclass(frozen=True)
class Expected:
    """A score and what it is made of, from all singular values in float64.

    Attributes:
        snr: None where nothing at or below the threshold differs from zero.
        signal_sum: sum of the values above the threshold.
        noise_sum: sum of those at or below.
        s_max: the largest.
        threshold: of the criterion.
    """

    snr: float | None
    signal_sum: float
    noise_sum: float
    s_max: float
    threshold: float


@dataclass(frozen=True)
class Truth:
    """All singular values of one matrix by LAPACK in float64, not through the package.

    Attributes:
        values: ascending; those at or below ``floor`` are zero, which float64 cannot tell them from.
        floor: ``eps * max(m, n) * s_max``, the customary numerical rank.
        shape: of the matrix.
    """

    values: np.ndarray
    floor: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, weight: Tensor) -> Truth:
        """Decompose."""
        values = np.linalg.svd(weight.to(torch.float64).numpy(), compute_uv=False)[::-1].copy()
        floor = float(values[-1]) * max(weight.shape) * np.finfo(float).eps
        values[values <= floor] = 0.0
        return cls(values, floor, (weight.shape[0], weight.shape[1]))

    def expected(self, rule: Criterion) -> Expected:
        """The score by the definition of the criterion."""
        q25, q50, q75 = np.quantile(self.values, [0.25, 0.5, 0.75])
        s_min, s_max = float(self.values[0]), float(self.values[-1])
        threshold = rule.threshold(OrderStatistics(s_min, q25, q50, q75, s_max), min(self.shape), max(self.shape))
        noise = self.values <= threshold
        noise_sum, signal_sum = float(self.values[noise].sum()), float(self.values[~noise].sum())
        snr = rule.score(signal_sum, noise_sum, s_max, threshold) if noise_sum > 0 and s_max > 0 else None
        return Expected(snr, signal_sum, noise_sum, s_max, float(threshold))


@dataclass(frozen=True)
class Verdict:
    """What one engine stated of one matrix, and how far off it was.

    Attributes:
        method: that the engine took.
        error: relative, of the score, or of the sums where nothing is divided; 0 where no number is claimed.
        bound: that was stated; infinite where nothing is claimed.
    """

    method: str
    error: float
    bound: float

    @property
    def ratio(self) -> float:
        """Error in units of the stated bound: at most 1 if the bound holds."""
        if self.error == 0.0 or math.isinf(self.bound):
            return 0.0
        return self.error / self.bound if self.bound > 0 else math.inf


def judge(truth: Truth, rule: Criterion, found: Spectrum) -> Verdict:
    """Hold one answer to the truth; a claim that is wrong altogether has an infinite error."""
    expected = truth.expected(rule)
    wrong = Verdict(found.method, math.inf, found.error_bound)
    if math.isinf(found.error_bound):
        return Verdict(found.method, 0.0, math.inf)
    if found.s_max == 0.0:
        return Verdict(found.method, 0.0, 0.0) if expected.s_max == 0.0 else wrong
    if found.noise_free:  # a threshold of rounding may have values of rounding below it in the truth
        if expected.noise_sum > truth.floor * len(truth.values):
            return wrong
        quotients = found.signal_sum / found.s_max, expected.signal_sum / expected.s_max
    elif found.snr is None or expected.snr is None or (found.snr == 0.0) != (expected.snr == 0.0):
        return wrong
    elif found.snr == 0.0:
        quotients = found.noise_sum * found.s_max, expected.noise_sum * expected.s_max
    else:
        quotients = found.snr, expected.snr
    return Verdict(found.method, abs(quotients[0] / quotients[1] - 1), found.error_bound)


def field_ratios(truth: Truth, rule: Criterion, found: Spectrum) -> dict[str, float]:
    """Error of every number that has a bound of its own, in units of that bound."""
    expected = truth.expected(rule)
    q25, q50, q75 = np.quantile(truth.values, [0.25, 0.5, 0.75])
    true = {"s_min": truth.values[0], "q25": q25, "q50": q50, "q75": q75, "s_max": expected.s_max}
    true |= {"threshold": expected.threshold, "signal_sum": expected.signal_sum, "noise_sum": expected.noise_sum}
    errors = {key: (abs(getattr(found, key) - value), getattr(found.errors, key)) for key, value in true.items()}
    n_signal = np.count_nonzero(truth.values > expected.threshold)
    errors["n_undecided"] = abs(found.n_signal - n_signal), found.errors.n_undecided
    median = OrderStatistics(0.0, 0.0, float(np.median(truth.values)), 0.0, 0.0)
    above = int((truth.values > rule.edge(median, min(truth.shape), max(truth.shape))).sum())
    errors["mp_rank"] = abs(found.mp_rank - above), found.errors.mp_rank or 0
    return {key: 0.0 if error == 0 else float(np.divide(error, bound)) for key, (error, bound) in errors.items()}


def in_blocks(weight: Tensor, count: int) -> BlockMatrix:
    """A matrix in blocks along its long side, each overwritten as soon as the next one is asked for."""
    axis = 0 if weight.shape[0] >= weight.shape[1] else 1

    def open_pass() -> Iterator[Tensor]:
        for part in weight.tensor_split(min(count, weight.shape[axis]), dim=axis):
            block = part.clone()
            yield block
            block.fill_(torch.nan)

    return BlockMatrix((weight.shape[0], weight.shape[1]), weight.dtype, torch.device("cpu"), open_pass)


def _blocks(weight: Tensor, rule: Criterion) -> Spectrum:
    return compute_spectrum(in_blocks(weight, 1 + sum(weight.shape) % 9), rule)


def _batched(weight: Tensor, rule: Criterion, backend: str) -> Spectrum:
    """The matrix and its mirror image as a batch; the answer for the first."""
    with use_backend(backend):
        found = compute_spectra([weight, weight.flip(0)], rule)[0]
    assert isinstance(found, Spectrum)
    return found


def _method(weight: Tensor, rule: Criterion, method: str, precision: str) -> Spectrum:
    return compute_spectrum(weight, rule, method=method, precision=precision)


ENGINES: dict[str, Callable[[Tensor, Criterion], Spectrum]] = {
    "auto": partial(_method, method="auto", precision="auto"),
    "band-float32": partial(_method, method="band", precision="float32"),
    "band-float64": partial(_method, method="band", precision="float64"),
    "svd-float32": partial(_method, method="svd", precision="float32"),
    "svd-float64": partial(_method, method="svd", precision="float64"),
    "blocks": _blocks,
    "batched": partial(_batched, backend="auto"),
    "batched-torch": partial(_batched, backend=MODEL),
}
"""Every way to a score that states a bound which is proved, not measured."""


POOLED = "pooled"
"""The score of a fused parameter whose parts are the upper, middle and lower third of the matrix."""

EVERY_ENGINE = (*ENGINES, POOLED)


def serves(engine: str, weight: Tensor) -> bool:
    """Whether this engine does anything that another one does not: batches leave small sides and float64 alone."""
    if engine == POOLED:
        return weight.shape[0] >= _PARTS
    return not engine.startswith("batched") or (_is_worth_a_band(*weight.shape) and weight.dtype != torch.float64)


def _is_worth_a_band(rows: int, columns: int) -> bool:
    return min(rows, columns) * rows * columns > SMALL_WORK


def verdict(engine: str, criterion: str, weight: Tensor, truth: Truth) -> Verdict:
    """Score a matrix by one engine and hold the answer to the truth."""
    rule = find_criterion(criterion)
    return _pooled(weight, rule) if engine == POOLED else judge(truth, rule, ENGINES[engine](weight, rule))


_PARTS = 3


def _pooled(weight: Tensor, rule: Criterion) -> Verdict:
    """Three parts of a parameter, scored by ``auto`` and merged; the truth is pooled by the same definition."""
    parts, signal_sum, noise_sum, floor, factors = [], 0.0, 0.0, 0.0, []
    for number, part in enumerate(weight.tensor_split(_PARTS)):
        truth, found = Truth.of(part), compute_spectrum(part, rule)
        if math.isinf(found.error_bound):
            return Verdict("pooled", 0.0, math.inf)
        parts.append(as_part(number, found))
        expected = truth.expected(rule)
        signal_sum, noise_sum = signal_sum + expected.signal_sum, noise_sum + expected.noise_sum
        floor += truth.floor * len(truth.values)
        if expected.s_max > 0 and (expected.threshold > 0 or not rule.threshold_power):
            factors.append(expected.threshold**rule.threshold_power / expected.s_max)
    merged = merge_parts(parts, rule.name)
    if merged.snr is None:
        return Verdict("pooled", 0.0 if noise_sum <= floor else math.inf, 0.0)
    if noise_sum == 0.0 or signal_sum == 0.0 or not factors:
        return Verdict("pooled", 0.0 if merged.snr == 0.0 else math.inf, merged.error_bound or 0.0)
    expected_snr = signal_sum / noise_sum * min(factors)
    return Verdict("pooled", abs(merged.snr / expected_snr - 1), merged.error_bound or 0.0)


def as_part(number: int, found: Spectrum) -> ModuleScore:
    """A spectrum as the record of one part of a fused parameter."""
    keys = ("snr", "noise_free", "s_max", "s_min", "threshold", "signal_sum", "noise_sum", "n_signal", "n_noise")
    return ModuleScore(
        name=f"layers.0.experts.{number}.up_proj",
        type=f"experts.{number}.up_proj",
        parameter="layers.0.experts.up_proj",
        shape=found.shape,
        dtype="F64",
        error_bound=found.error_bound,
        parts=_PARTS,
        parameter_shape=(_PARTS, *found.shape),
        **{key: getattr(found, key) for key in keys},
    )
