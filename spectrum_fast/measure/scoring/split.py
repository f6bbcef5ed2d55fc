"""A rule that splits signal from noise, asked of a matrix that another criterion has scored: from all its values."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.quantities import SpectrumView
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics, relative_error

if TYPE_CHECKING:
    from spectrum_fast.measure.scoring.records import ModuleScore

NO_BOUND = 1e100
"""A bound that says nothing; the cube of a larger one is no float any more."""
_FLOOR_BOUND = 4.0
"""Largest bound of a value that is zero but for rounding, in units of ``eps max(m, n) s_max``: what a float64 SVD
states is up to 3.4 of these (:mod:`spectrum_fast.measure.spectra.methods.svd`)."""


def split_again(module: ModuleScore, rule: Criterion) -> ModuleScore:
    """The module's record by another rule.

    Bounds: the threshold at all corners of the quartiles' own; every value anywhere within its own; and in both sums
    the values whose side is then not known.

    Raises:
        UsageError: the scan does not hold all values, or whether any of them is noise is not known.
    """
    if module.singular_values is None:
        raise UsageError(
            f"{module.name}: expected its sums by criterion {rule.name!r}, found those of another and no singular "
            f"values; scan with --criterion {rule.name}, or with --spectra, which stores the values"
        )
    view, eps = SpectrumView(module), np.finfo(np.float64).eps
    values, bounds, s_max = view.values, view.bounds, view.s_max
    if s_max == 0.0:
        return module

    def threshold_off(*signs: int) -> float:
        off = view.errors.q25, view.errors.q50, view.errors.q75
        known = zip((view.q25, view.q50, view.q75), signs, off, strict=True)
        q25, q50, q75 = (value + sign * error for value, sign, error in known)
        return rule.threshold(OrderStatistics(view.s_min, q25, q50, q75, s_max), view.n_min, view.n_max)

    threshold = threshold_off(0, 0, 0)
    shift = max(abs(threshold_off(*signs) - threshold) for signs in product((-1, 1), repeat=3))
    floor = eps * view.n_max * s_max  # below it float64 tells nothing from zero
    zero = (values <= 0.5 * floor) & (bounds <= _FLOOR_BOUND * floor)
    values, bounds = np.where(zero, 0.0, values), np.where(zero, 0.0, bounds)
    noise, undecided = values <= threshold, ~zero & (abs(values - threshold) <= bounds + shift)
    n_undecided = int(undecided.sum())
    doubt = float((values + bounds)[undecided].sum()) + 8 * len(values) * eps * float(values.sum())
    sums = signal_sum, noise_sum = [float(values[side].sum()) for side in (~noise, noise)]
    errors = signal_error, noise_error = [float(bounds[side].sum()) + doubt for side in (~noise, noise)]
    if noise_sum == 0.0 and n_undecided:
        raise UsageError(f"{module.name}: whether any value is noise is not known; scan with --criterion {rule.name}")
    parts = [(view.errors.s_max, s_max)] + [(shift, threshold)] * rule.threshold_power
    parts += [part for part in zip(errors, sums, strict=True) if part[1] or n_undecided]  # a sum of none is exact
    return replace(
        module,
        snr=rule.score(signal_sum, noise_sum, s_max, threshold) if noise_sum else None,
        noise_free=not noise_sum,
        threshold=threshold,
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        n_signal=int((~noise).sum()),
        n_noise=int(noise.sum()),
        error_bound=min(relative_error(parts), NO_BOUND),
        errors=replace(
            view.errors, threshold=shift, signal_sum=signal_error, noise_sum=noise_error, n_undecided=n_undecided
        ),
    )
