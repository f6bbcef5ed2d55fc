"""One module in a terminal: the picture holds the counts, the words hold the numbers, what is missing is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.record import OrderStatistics
from spectrum_fast.use.report.module_view import module_view
from spectrum_fast.use.report.thresholds import find_thresholds

from support import matrices, scans
from support.terminal import render


def scan_of(weight: torch.Tensor) -> sf.Scan:
    """One real spectrum as a scan."""
    found = sf.spectrum(weight)
    keys = ("s_max", "s_min", "q25", "q50", "q75", "threshold", "signal_sum", "noise_sum", "n_signal", "n_noise")
    fields = {key: getattr(found, key) for key in (*keys, "error_bound", "method", "histogram")}
    module = scans.scored("model.layers.0.mlp.up_proj", found.snr, shape=tuple(weight.shape), dtype="F64", **fields)
    return sf.Scan("one", "spectrum", (module,))


def test_both_thresholds_whatever_the_scan_used() -> None:
    weight = matrices.trained_like(260, 400, seed=1)
    for criterion in ("spectrum", "mp"):
        found = sf.spectrum(weight, criterion=criterion)
        module = replace(scan_of(weight).modules[0], threshold=found.threshold)
        both = find_thresholds(module)
        assert both is not None
        assert getattr(both, criterion) == pytest.approx(found.threshold, rel=1e-9)
    vector = scans.scored("n", 1.0, shape=(7,), s_min=1.0, q25=1.0, q50=1.0, q75=1.0, s_max=1.0)
    both = find_thresholds(vector)
    assert both is not None
    assert (both.n_min, both.n_max) == (1, 7)
    assert both.mp == find_criterion("mp").threshold(OrderStatistics(1.0, 1.0, 1.0, 1.0, 1.0), 1, 7)
    assert find_thresholds(scans.scored("n", 1.0)) is None


def test_bars_stand_as_high_as_their_counts() -> None:
    scan = scan_of(matrices.trained_like(260, 400, outliers=(30.0,), seed=2))
    module = scan.modules[0]
    lines = render(module_view(scan, module))
    counts = np.array(module.histogram.counts)  # type: ignore[union-attr]
    picture = [line[8:].ljust(64) for line in lines[3:15]]
    for column, count in enumerate(counts):
        letters = [picture[row][column] for row in range(12)]
        if "•" in letters:
            continue  # the curve of noise stands in front
        filled = sum("▁▂▃▄▅▆▇█".find(letter) + 1 for letter in letters) / 8
        top = max(counts.max(), 1)
        assert filled == pytest.approx(12 * count / top, abs=12 * 0.35 + 0.2), column
        assert (filled > 0) == (count > 0)
    assert lines[3].startswith(f"{counts.max():6d} │") or int(lines[3][:6]) > counts.max()
    text = "\n".join(lines)
    assert f"snr             {module.snr:.6g}" in text
    assert "260 x 400" in text
    assert f"{module.n_signal} values above, sum {module.signal_sum:.6g}" in text
    assert f"S Spectrum rule {module.threshold:.4g}" in text
    assert max(map(len, lines)) <= 80


def test_pure_noise_lies_under_its_curve() -> None:
    scan = scan_of(matrices.gaussian(400, 600, seed=3))
    lines = render(module_view(scan, scan.modules[0]))
    columns = list(zip(*(line[8:].ljust(64) for line in lines[3:15]), strict=False))
    bars = [sum(letter in "▁▂▃▄▅▆▇█" for letter in column) for column in columns]
    curve = [12 - column.index("•") if "•" in column else 0 for column in columns]
    assert max(curve) >= 8
    assert sum(curve) == pytest.approx(sum(bars), rel=0.25)
    assert "(above all values)" in "\n".join(lines) or "M" in lines[2]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_width_and_no_unicode(width: int) -> None:
    scan = scan_of(matrices.trained_like(260, 400, seed=4))
    assert max(map(len, render(module_view(scan, scan.modules[0]), width)[:17])) <= width
    assert all(line.isascii() for line in render(module_view(scan, scan.modules[0]), width, "ascii"))


@pytest.mark.parametrize("width", [20, 24, 30, 60, 100])
def test_a_narrow_picture_shows_true_numbers_and_explains_its_marks(width: int) -> None:
    scan = scan_of(matrices.trained_like(260, 400, outliers=(30.0,), seed=4))
    histogram = scan.modules[0].histogram
    assert histogram is not None
    lines = render(module_view(scan, scan.modules[0]), width)
    below = next(place for place, line in enumerate(lines) if line.lstrip().startswith("└"))
    axis = [float(number) for number in lines[below + 1].split()]
    edges = [float(f"{edge:.4g}") for edge in histogram.edges]
    assert (axis[0], axis[-1]) == (edges[0], edges[-1])
    assert set(axis) <= set(edges)
    assert ("B" in lines[below - 13]) == ("B: both thresholds" in " ".join(" ".join(lines).split()))


@pytest.mark.parametrize("weight", [torch.zeros(5, 7), torch.ones(9), torch.eye(4), torch.full((3, 3), 1e-30)])
def test_degenerate_spectra_are_drawn(weight: torch.Tensor) -> None:
    scan = scan_of(weight)
    assert render(module_view(scan, scan.modules[0]))


def test_what_is_missing_is_said() -> None:
    published = replace(scans.dense_model(spectra=False), provenance={"source": "published"})
    text = " ".join(render(module_view(published, published.modules[1])))
    assert "no spectrum: a published result holds scores only; scan the checkpoint to see one" in text
    assert "shape" not in text
    older = scans.dense_model(spectra=False)
    assert "scan again with this version" in " ".join(render(module_view(older, older.modules[1])))
    fused = scans.fused_model()
    whole = fused["model.layers.2.mlp.experts.down_proj"]
    assert "fuses several matrices, show one of them" in " ".join(render(module_view(fused, whole)))


def test_names_that_find_a_module() -> None:
    scan = scans.failed_model()
    for name in ("model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.weight"):
        assert scan[name].name == "model.layers.0.mlp.up_proj"
    assert scan["lm_head"].name == "model.embed_tokens"  # tied


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.layers.0.mlp.up_prj", "nearest: model.layers.0.mlp.up_proj"),
        ("model.layers.1.mlp.up_proj", r"has no score \(values\): holds NaN in 3 entries"),
        ("model.norm", r"was not scored: 1-D \(norm or bias\)"),
        ("", "no module ''"),
    ],
)
def test_names_that_find_none(name: str, message: str) -> None:
    with pytest.raises(KeyError, match=message):
        scans.failed_model()[name]


def test_the_rank_is_that_within_the_tower() -> None:
    scan = scans.towers_model()
    names = [module.name for module in scan.modules if module.type == "mlp.fc1"]
    for tower, count in (("vision_tower", 4), ("language_model", 8)):
        rivals = sorted((-scan.module(name).rank_value, name) for name in names if name.startswith(tower))
        shown = f"of {count} of type {'vision:' if tower == 'vision_tower' else ''}mlp.fc1"
        for place, (_, name) in enumerate(rivals, start=1):
            lines = render(module_view(scan, scan[name]))
            assert any(line.split("  ")[-1].strip() == f"{place} {shown}" for line in lines), lines
