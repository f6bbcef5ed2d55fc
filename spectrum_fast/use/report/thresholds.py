"""Both thresholds of a module, whichever of them the scan was scored by."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.record import OrderStatistics


@dataclass(frozen=True)
class Thresholds:
    """Where two rules put the boundary between noise and signal in one spectrum.

    Attributes:
        n_min: short side of the matrix.
        n_max: long side.
        spectrum: of the published rule, from the inter-quartile range.
        mp: the Marchenko-Pastur edge, from the median.
        sigma: standard deviation of the noise entries that the median implies.
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
    sides = sorted((1, *module.shape))[-2:]
    n_min, n_max = sides
    order = OrderStatistics(*known)
    return Thresholds(
        n_min=n_min,
        n_max=n_max,
        spectrum=find_criterion("spectrum").threshold(order, n_min, n_max),
        mp=find_criterion("mp").threshold(order, n_min, n_max),
        sigma=noise_scale(order.q50, n_min, n_max),
    )
