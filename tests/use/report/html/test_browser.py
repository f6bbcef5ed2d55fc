"""The report in a real browser: every plot drawn, both colours, both widths, table, drill-down, export."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import scans
from support.marks import slow

DRAWN = """() => [...document.querySelectorAll('.plot')].filter((plot) => plot.offsetParent !== null)
  .map((plot) => [plot.closest('section').id, plot.querySelector('.main-svg') !== null])"""


@pytest.mark.parametrize("kind", ["single", "compared", *slow("experts")])
def test_everything_is_drawn_in_both_colours_at_any_width(open_report, kind: str) -> None:
    chosen = {
        "single": [scans.dense_model()],
        "compared": [scans.dense_model(), scans.dense_model(seed=1)],
        "experts": [scans.experts_model(spectra=True)],
    }[kind]
    wanted = {
        "single": {"heatmap", "ranks", "spectrum"},
        "compared": {"heatmap", "ranks", "spectrum", "difference", "scatter", "overlap"},
        "experts": {"heatmap", "ranks", "spectrum", "experts"},
    }[kind]
    page = open_report(*chosen)
    if kind == "experts":
        page.run("spectrumReport.openExperts(spectrumReport.current().rows.find((row) => row.name.includes('*')))")
    for width in (1280, 400):
        page.page.set_viewport_size({"width": width, "height": 900})
        for scheme, paper in (("light", "#ffffff"), ("dark", "#161a20")):
            page.page.emulate_media(color_scheme=scheme)
            page.page.wait_for_function(
                "([width, paper]) => { const { layout } = document.querySelector('#heatmap .plot');"
                " return layout.paper_bgcolor === paper && layout.width < width && layout.width > width - 120; }",
                arg=[width, paper],
            )
            drawn = dict(page.run(DRAWN))
            assert set(drawn) == wanted
            assert all(drawn.values())
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run("document.documentElement.dataset.theme") == scheme
            background = page.run("getComputedStyle(document.body).backgroundColor")
            parts = background.removeprefix("rgb(").removesuffix(")").split(",")
            assert (sum(map(int, parts)) > 3 * 128) == (scheme == "light")


def test_the_button_changes_the_colours(gallery) -> None:
    page = gallery("dense")
    page.page.emulate_media(color_scheme="dark")
    themes = []
    for _ in range(3):
        page.page.locator("#theme").click()
        themes.append(page.run("document.documentElement.dataset.theme"))
    assert themes == ["light", "dark", "dark"]
    page.page.emulate_media(color_scheme="light")
    page.settle()
    assert page.run("document.documentElement.dataset.theme") == "light"


def test_the_table_holds_only_the_rows_in_sight(gallery) -> None:
    page = gallery("many experts")
    scan = page.scan
    rows = page.page.locator(".row")
    assert len(scan.modules) > 2000
    assert rows.count() < 60
    assert rows.first.inner_text().startswith("model.embed_tokens")
    page.run("document.querySelector('.table-scroll').scrollTop = 1e9")
    page.settle()
    assert rows.last.inner_text().startswith("lm_head")
    assert rows.count() < 60
    page.page.get_by_label("search modules").fill("EXPERTS.17 down layers.5")
    assert page.page.locator(".shown").inner_text() == f"1 of {len(scan.modules):,}"
    rows.first.click()
    assert "model.layers.5.mlp.experts.17.down_proj" in page.page.locator("#spectrum").inner_text()


def test_sorting(gallery) -> None:
    page = gallery("dense")
    scan = page.scan
    order = sorted(scan.modules, key=lambda module: -module.rank_value)
    column = page.page.locator(".row .cell-snr")
    page.page.get_by_label("sort by SNR").click()
    shown = [text for text in column.all_inner_texts() if text != "noise-free"]
    finite = [f"{module.snr:.4g}" for module in order if module.snr is not None]
    assert [float(text) for text in shown] == [float(text) for text in finite[: len(shown)]]
    page.page.get_by_label("sort by SNR").click()
    assert float(column.first.inner_text()) == float(f"{order[-1].snr:.4g}")


def test_clicking_a_cell_shows_the_module(gallery) -> None:
    page = gallery("dense")
    scan = page.scan
    page.run(
        "document.querySelector('#heatmap .plot').emit('plotly_click', { points: [{ x: 7, y: 2 }] })",
    )
    assert "model.layers.7.mlp.up_proj" in page.page.locator("#spectrum").inner_text()
    facts = page.page.locator("#facts").inner_text()
    module = scan.module("model.layers.7.mlp.up_proj")
    assert f"{module.snr:.4g}" in facts
    assert "96 × 64" in facts


def test_every_tower_has_its_map(gallery) -> None:
    page = gallery("towers")
    maps = page.page.locator("section[id^=heatmap]")
    assert [text for text in maps.locator("h2").all_inner_texts() if text] == [
        "Signal by layer and module type: language-model",
        "Signal by layer and module type: vision",
    ]
    shown = """(id) => {
      const { data, layout } = document.querySelector(`#${id} .plot`);
      return [layout.yaxis.ticktext, data[0].z[0].length];
    }"""
    kinds = ["self_attn.q_proj", "self_attn.k_proj", "mlp.fc1"]
    assert page.run(shown, "heatmap") == [kinds, 8]
    assert page.run(shown, "heatmap-2") == [[f"vision:{kind}" for kind in kinds], 4]
    page.run("document.querySelector('#heatmap-2 .plot').emit('plotly_click', { points: [{ x: 3, y: 2 }] })")
    assert "vision_tower.encoder.layers.3.mlp.fc1" in page.page.locator("#spectrum").inner_text()
    gallery("dense")
    assert maps.first.locator("h2").inner_text() == "Signal by layer and module type"
    assert not maps.nth(1).is_visible()


def test_cells_of_experts_open(gallery) -> None:
    page = gallery("experts")
    row = page.run("spectrumReport.current().rows.findIndex((row) => row.name === 'mlp.experts.*.up_proj')")
    page.run(
        "(row) => document.querySelector('#heatmap .plot').emit('plotly_click', { points: [{ x: 3, y: row }] })", row
    )
    assert page.page.locator("#experts").is_visible()
    assert page.run("document.querySelector('#experts .plot').data[0].z.length") == 16
    page.run("document.querySelector('#experts .plot').emit('plotly_click', { points: [{ x: 2, y: 11 }] })")
    assert "model.layers.3.mlp.experts.11.up_proj" in page.page.locator("#spectrum").inner_text()


def test_cells_of_experts_are_means_and_medians(gallery) -> None:
    page = gallery("experts")
    scan = page.scan
    routed = sorted(
        module.snr
        for module in scan.modules
        if module.snr is not None
        and module.name.startswith("model.layers.3.mlp.experts.")
        and module.type.endswith(".up_proj")
    )
    code = """(how) => { spectrumReport.app.how = how; const scan = spectrumReport.current();
      const row = scan.rows.find((entry) => entry.name === 'mlp.experts.*.up_proj');
      return spectrumReport.summarise(scan, row.cells.get(3), how).value; }"""
    assert page.run(code, "mean") == pytest.approx(sum(routed) / len(routed), rel=1e-12)
    middle = len(routed) // 2
    median = routed[middle] if len(routed) % 2 else (routed[middle - 1] + routed[middle]) / 2
    assert page.run(code, "median") == pytest.approx(median, rel=1e-12)


@pytest.mark.parametrize("plot", ["heatmap", "spectrum"])
def test_plots_are_saved_for_papers(gallery, tmp_path: Path, plot: str) -> None:
    page = gallery("dense")
    page.page.emulate_media(color_scheme="dark")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG\r\n")):
        with page.page.expect_download() as waiting:
            page.page.locator(f"#{plot}").get_by_role("button", name=kind).click()
        target = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(target)
        content = target.read_bytes()
        assert target.name == f"{plot}-dense-scan-1-top25.{kind.lower()}"
        assert content.startswith(start)
        assert len(content) > 5_000
        if kind == "SVG":
            text = content.decode()
            assert "rgb(255, 255, 255)" in text  # white paper, whatever the page looks like
            assert "<script" not in text


def test_the_table_is_saved(gallery, tmp_path: Path) -> None:
    page = gallery("dense")
    scan = page.scan
    with page.page.expect_download() as waiting:
        page.page.locator("#modules").get_by_role("button", name="CSV").click()
    waiting.value.save_as(tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(scan.modules)
    assert lines[0] == "module,type,layer,shape,dtype,snr,noise_free,rank,group_size,selected,error_bound"
    module = scan.modules[1]
    assert lines[2].startswith(f'"{module.name}","{module.type}",0,"96x64","BF16",{module.snr!r},false,')


def test_a_published_result_says_what_it_lacks(gallery) -> None:
    page = gallery("published")
    text = page.page.locator("body").inner_text()
    assert "published result: scores only" in text
    assert "A published result holds scores only. Scan the checkpoint with spectrum_fast to see spectra." in text
    assert "not in the file" in text
    assert "how long" not in text  # times are no part of a scan file, so there is no panel on them
    assert page.page.locator("#spectrum .saving").is_hidden()


def test_failures_ties_and_what_was_left_out_are_shown(gallery) -> None:
    page = gallery("failed")
    text = page.page.locator("body").inner_text()
    assert "1 tensor without a score" in text
    assert "model.layers.1.mlp.up_proj values: holds NaN in 3 entries" in text
    assert "lm_head = model.embed_tokens" in text
    assert "1 × 1-D (norm or bias)" in text
    assert "✕ no score" in text
    assert page.page.locator("#command").inner_text().endswith("--allow-incomplete")


@pytest.mark.parametrize("name", ["no layers", "nothing scored", *slow("all noise-free", "far layers", "far experts")])
def test_odd_scans_are_drawn(gallery, name: str) -> None:
    page = gallery(name)
    assert page.page.locator("#modules .shown").inner_text() == f"{len(page.scan.modules)} modules"
    page.run("() => { const row = spectrumReport.current().rows[0]; if (row) spectrumReport.openExperts(row); }")
    text = page.page.locator("main").inner_text()
    assert {
        "no layers": "No module of this scan lies in a numbered layer",
        "all noise-free": "★ noise-free",
        "far layers": "No module of this scan lies in a numbered layer",
        "far experts": "too many rows to draw",
        "nothing scored": "1 tensor without a score",
    }[name] in text
