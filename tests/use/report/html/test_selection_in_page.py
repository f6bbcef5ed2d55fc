"""What the page computes by itself is what Python computes: selections, cuts, comparisons, the curve of noise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spectrum_fast.choose.selection.compare import compare_scans
from spectrum_fast.measure.scoring.marchenko_pastur import singular_value_density
from spectrum_fast.use.report.thresholds import find_thresholds

from support import scans
from support.marks import slow

PERCENTS = [0.5, 1, 7, 10, 12.5, 25, 29, 33.3, 50, 57, 75, 99.9, 100]
SELECT = """([percents, groupings]) => groupings.map((grouping) => percents.map((percent) => {
  const scan = spectrumReport.current();
  const found = spectrumReport.selectModules(scan, percent, grouping);
  return { names: spectrumReport.selectedNames(scan, found),
           cuts: found.cuts.map((cut) => [cut.name, cut.taken, cut.size, cut.gap, cut.undecided]) };
}))"""


@pytest.mark.parametrize(
    "name", ["dense", "many experts", "towers", *slow("experts", "fused", "many layers", "failed")]
)
def test_the_slider_selects_what_the_command_selects(gallery, name: str) -> None:
    page = gallery(name)
    scan = page.scan
    groupings = ["type", "experts-merged", "global", "reference"]
    found = page.run(SELECT, [PERCENTS, groupings])
    for grouping, by_percent in zip(groupings, found, strict=True):
        for percent, result in zip(PERCENTS, by_percent, strict=True):
            expected = scan.select(percent, grouping=grouping, allow_incomplete=True)
            assert result["names"] == list(expected.names), (grouping, percent)
            for group, cut in zip(expected.groups, result["cuts"], strict=True):
                assert cut[:3] == [group.name, group.taken, group.size]
                assert cut[3] == (group.gap if group.gap is None else pytest.approx(group.gap, rel=1e-12))
                assert cut[4] == group.undecided


def test_moving_the_slider_moves_everything(gallery) -> None:
    page = gallery("dense")
    scan = page.scan
    for percent in (10, 60):
        page.page.locator("#percent").fill(str(percent))
        page.settle()
        expected = scan.select(percent)
        taken = page.page.locator("#taken").inner_text()
        assert taken.startswith(
            f"{len(expected.modules)} of {sum(group.size or 0 for group in expected.groups)} selected"
        )
        assert page.page.locator("#command").inner_text() == f"spectrum-fast select SCAN --top-percent {percent}"
        assert f"percent={percent}" in page.page.url
        page.page.get_by_label("selected only").check()
        assert page.page.locator(".shown").inner_text() == f"{len(expected.names)} of {len(scan.modules)}"
        page.page.get_by_label("selected only").uncheck()
        assert f"{expected.groups[1].taken} of 12" in page.page.locator("#ranks").inner_text()


def test_slow_plots_wait_until_the_slider_rests(open_report) -> None:
    """Numbers follow at once; the plots of tens of thousands of modules would stop the page at every step."""
    page = open_report(scans.experts_model())
    page.run("""() => {
      const react = Plotly.react;
      window.drawn = 0;
      Plotly.react = (...all) => {
        window.drawn += 1;
        const until = performance.now() + 60;
        while (performance.now() < until);
        return react(...all);
      };
    }""")
    page.run("spectrumReport.setPercent(10)")  # drawn at once, and found to be slow
    page.settle()
    before = page.run("window.drawn")
    assert before >= 2
    # The page's own frame comes before the one asked for here.
    step = """async () => {
      spectrumReport.setPercent(31);
      await new Promise(requestAnimationFrame);
      return [window.drawn, document.getElementById("command").textContent];
    }"""
    drawn, command = page.run(step)
    assert command.endswith("--top-percent 31")
    assert drawn == before
    page.settle()
    assert page.run("window.drawn") == 2 * before


def test_an_address_restores_the_state(open_report) -> None:
    state = "[spectrumReport.app.percent, spectrumReport.app.grouping, spectrumReport.app.scan]"
    page = open_report(scans.experts_model(), address="#percent=40&grouping=experts-merged&scan=9&theme=dark")
    assert page.run(state) == [40, "experts-merged", 0]
    assert page.run("document.documentElement.dataset.theme") == "dark"
    page.page.goto("about:blank")
    page.page.goto(page.address + "#percent=1e9&grouping=<img>&scan=-1")
    page.page.wait_for_selector("html[data-ready]", state="attached", timeout=90_000)
    assert page.run(state) == [25, "type", 0]


@pytest.mark.parametrize(
    ("first", "second"), [("dense", "dense again"), ("experts", "many experts"), ("dense", "failed")]
)
def test_comparisons_are_those_of_the_command(gallery, first: str, second: str) -> None:
    page = gallery(first)
    a, b = page.scan, gallery(second).scan
    code = """([first, second, percents]) => percents.map((percent) => {
      const pair = spectrumReport.pairScans(spectrumReport.app.scans[first], spectrumReport.app.scans[second]);
      const { nA, nB, both, jaccard, median, spearman, within } = spectrumReport.comparePairs(pair, percent, "type");
      return { pairs: pair.pairs.length, nA, nB, both, jaccard, median, spearman, within };
    })"""
    places = [next(i for i, scan in enumerate(page.scans) if scan is one) for one in (a, b)]
    for percent, found in zip(PERCENTS, page.run(code, [*places, PERCENTS]), strict=True):
        expected = compare_scans(a, b, percent)
        assert found["pairs"] == len(expected.differences)
        overlap = expected.overlap
        assert (found["nA"], found["nB"], found["both"]) == (overlap.n_a, overlap.n_b, overlap.n_both)
        assert found["jaccard"] == pytest.approx(overlap.jaccard, rel=1e-12)
        median = expected.median_relative
        assert found["median"] == (median if median is None else pytest.approx(median, rel=1e-12))
        assert found["spearman"] == pytest.approx(expected.spearman, rel=1e-9)
        assert found["within"] == pytest.approx(expected.spearman_within_types, rel=1e-9, abs=1e-12)


def test_scores_of_two_criteria_are_compared_by_rank_alone(open_report) -> None:
    """No factor, no difference and no diagonal, where the two have no common scale."""
    a = scans.dense_model()
    page = open_report(a, replace(scans.dense_model(seed=1), criterion="mp"))
    assert "no common scale" in page.page.locator("#difference").inner_text()
    lead = page.page.locator("#scatter .lead").inner_text()
    assert lead.startswith("Spearman within types ")
    assert "median difference" not in lead
    texts = page.run("[...document.querySelector('#scatter .plot').data].flatMap((trace) => trace.text ?? []).join()")
    assert "SNR" in page.page.locator("#scatter").inner_text()
    assert "A " in texts
    assert "factor" not in texts
    assert page.run("document.querySelector('#scatter .plot').data.every((trace) => trace.mode === 'markers')")


def test_edges_and_the_curve_of_noise(gallery) -> None:
    page = gallery("dense")
    module = page.scan.module("model.layers.1.mlp.up_proj")
    thresholds = find_thresholds(module)
    assert module.histogram is not None
    assert thresholds is not None
    points = np.linspace(0, 1.1 * thresholds.mp, 60)
    found = page.run(
        """([name, points]) => {
          const scan = spectrumReport.current();
          const index = scan.byName.get(name);
          const [nMin, nMax] = [64, 96];
          return { edges: spectrumReport.histogramEdges(scan.histogram[index]), counts: scan.histogram[index][4],
            thresholds: [scan.threshold_spectrum[index], scan.threshold_mp[index]],
            density: points.map((s) => spectrumReport.noiseDensity(s, scan.threshold_mp[index], nMin, nMax)) };
        }""",
        [module.name, points.tolist()],
    )
    np.testing.assert_allclose(found["edges"], module.histogram.edges, rtol=1e-6)
    assert found["counts"] == list(module.histogram.counts)
    assert found["thresholds"] == pytest.approx([module.threshold, thresholds.mp], rel=1e-6)
    expected = singular_value_density(points, thresholds.sigma, thresholds.n_min, thresholds.n_max)
    np.testing.assert_allclose(found["density"], expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_what_is_drawn_is_what_was_counted(gallery) -> None:
    """The bars that plotly holds sum to the number of values, and the curve's area is that number too."""
    page = gallery("dense")
    name = "model.layers.1.mlp.up_proj"
    page.run("(name) => spectrumReport.pick(spectrumReport.current().byName.get(name), false)", name)
    bars, curve = json.loads(
        page.run(
            "JSON.stringify(document.querySelector('#spectrum .plot').data.map(({x, y, width}) => ({x, y, width})))"
        )
    )
    assert np.dot(bars["y"], bars["width"]) == pytest.approx(64, rel=1e-9)
    assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(64, rel=2e-3)
    shapes = page.run("document.querySelector('#spectrum .plot').layout.shapes.map((shape) => shape.x0)")
    thresholds = find_thresholds(page.scan.module(name))
    assert thresholds is not None
    assert shapes == pytest.approx([thresholds.spectrum, thresholds.mp], rel=1e-6)
