"""Both thresholds of a module, whichever of them the scan was scored by."""

from __future__ import annotations

from typing import NamedTuple

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.record import OrderStatistics


class Thresholds(NamedTuple):
    """Where two rules put the boundary between noise and signal in the spectrum of a matrix of these sides.

    The published rule goes by the inter-quartile range, the Marchenko-Pastur edge by the median, which implies the
    standard deviation ``sigma`` of the noise entries.
    """

    n_min: int
    n_max: int
    spectrum: float
    mp: float
    sigma: float


def find_thresholds(module: ModuleScore) -> Thresholds | None:
    """Both thresholds, from the quantiles and the shape; None where a published file does not tell them."""
    statistics = (module.s_min, module.q25, module.q50, module.q75, module.s_max)
    if module.shape is None or not 1 <= len(module.shape) <= 2 or 0 in module.shape:
        return None
    known = [value for value in statistics if value is not None]
    if len(known) < len(statistics):
        return None
    n_min, n_max = sorted((1, *module.shape))[-2:]
    order = OrderStatistics(*known)
    return Thresholds(
        n_min=n_min,
        n_max=n_max,
        spectrum=find_criterion("spectrum").threshold(order, n_min, n_max),
        mp=find_criterion("mp").threshold(order, n_min, n_max),
        sigma=noise_scale(order.q50, n_min, n_max),
    )
