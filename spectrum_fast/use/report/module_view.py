"""One module of a scan as a person reads it: its spectrum and its numbers."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from spectrum_fast.choose.selection.fused import fused_modules
from spectrum_fast.choose.selection.ranking import group_modules, rank_modules, towers_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.measure.scoring.criteria import quantities_of
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.use.report.layout import facts_table, page, printable
from spectrum_fast.use.report.spectrum_plot import SpectrumPlot, ValuesPlot
from spectrum_fast.use.report.thresholds import Thresholds, find_thresholds


def module_view(scan: Scan, module: ModuleScore) -> RenderableType:
    """Name, picture, numbers; what the scan file does not hold is said."""
    thresholds = find_thresholds(module)
    parts: list[RenderableType] = [Text(printable(module.name), style="bold"), ""]
    if module.histogram is not None:
        parts.append(SpectrumPlot(module.histogram, thresholds))
    else:
        parts.append(_no_histogram(scan, module))
    if module.singular_values is not None:
        parts += ["", ValuesPlot(module.singular_values.values, thresholds.mp if thresholds else None)]
    return page(*parts, "", _facts(scan, module, thresholds))


def _no_histogram(scan: Scan, module: ModuleScore) -> str:
    if scan.published:
        return "no spectrum: a published result holds scores only; scan the checkpoint to see one"
    if module.method == "fused":
        return "no spectrum of its own: this parameter fuses several matrices, show one of them"
    return "no spectrum: this scan file holds no histograms; scan again with this version to get them"


def _facts(scan: Scan, module: ModuleScore, thresholds: Thresholds | None) -> Table:
    score = "noise-free, ranks above every finite score" if module.snr is None else f"{module.snr:.6g}"
    bound = (
        ""
        if module.error_bound is None or module.snr is None
        else f"  (relative error at most {module.error_bound:.1e})"
    )
    group, ranked = _rivals(scan, module)
    return facts_table(
        {
            "snr": f"{score}{bound}",
            "rank": f"{ranked.index(module) + 1} of {len(ranked)} of type {group}",
            "shape": None if module.shape is None else " x ".join(map(str, module.shape)),
            "stored as": module.dtype,
            "values": _quantiles(module),
            "threshold used": _number(module.threshold, f" (criterion {scan.criterion})"),
            "Spectrum rule": _number(thresholds.spectrum if thresholds else None),
            "MP edge": _number(thresholds.mp if thresholds else None),
            "signal": _side(module.n_signal, module.signal_sum, "above"),
            "noise": _side(module.n_noise, module.noise_sum, "at or below"),
            "angles to base": _angles(module),
            "other criteria": ", ".join(f"{name} {value:.4g}" for name, value in quantities_of(module).items()) or None,
            "method": module.method,
            "note": module.note or None,
        }
    )


def _rivals(scan: Scan, module: ModuleScore) -> tuple[str, list[ModuleScore]]:
    """The modules of its type in its tower, best first, and what that group is called."""
    groups = group_modules((*scan.modules, *fused_modules(scan)), "type", towers_of(scan))
    group, members = next((group, members) for group, members in groups.items() if module in members)
    return group, rank_modules(members)


def _quantiles(module: ModuleScore) -> str | None:
    named = (("min", module.s_min), ("q25", module.q25), ("median", module.q50), ("q75", module.q75))
    shown = [f"{key} {value:.4g}" for key, value in (*named, ("max", module.s_max)) if value is not None]
    return ", ".join(shown) or None


def _angles(module: ModuleScore) -> str | None:
    sides = (("left", module.left_cosine, module.left_overlap), ("right", module.right_cosine, module.right_overlap))
    shown = [
        f"{side}: largest cosine {cosine:.3f}, mean square {overlap:.3f}"
        for side, cosine, overlap in sides
        if cosine is not None and overlap is not None
    ]
    return "; ".join(shown) or None


def _number(value: float | None, more: str = "") -> str | None:
    return None if value is None else f"{value:.6g}{more}"


def _side(count: int | None, total: float | None, where: str) -> str | None:
    return None if count is None or total is None else f"{count} values {where}, sum {total:.6g}"
