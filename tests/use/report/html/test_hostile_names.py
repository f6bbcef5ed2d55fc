"""Names from a stranger's file stay names: no markup, no script, no style, shown as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrum_fast import Scan
from spectrum_fast.measure.scoring.records import ScanFailure, SkippedTensor
from spectrum_fast.use.report.html.page import render_page
from spectrum_fast.use.report.html.payload import build_payload, make_labels

from support import scans

ASSETS = Path(scans.__file__).parents[2] / "spectrum_fast" / "use" / "report" / "html" / "assets"


def hostile_scan() -> Scan:
    """Hostile text wherever a scan file has text."""
    names = [name for name in scans.HOSTILE if name.isprintable()]  # no scan holds others
    modules = [scans.scored(name, 1.0 + place) for place, name in enumerate(names)]
    modules += [
        scans.scored(f"model.layers.{layer}.{name}", 0.5 + layer, method=name, note=text, dtype=text)
        for layer in range(3)
        for name, text in zip(names, scans.HOSTILE[-len(names) :], strict=True)
    ]
    evil = scans.HOSTILE[1]
    return Scan(
        evil,
        "spectrum",
        tuple(modules),
        failures=(ScanFailure(name=f"model.layers.1.{evil}x", kind=evil, message=evil),),
        ties={f"{evil}copy": modules[0].name},
        skipped=(SkippedTensor("x", scans.HOSTILE[0]),),
        provenance={"notes": [evil], evil: evil, "created": evil, "__proto__": {"polluted": evil}},
    )


def test_no_script_of_a_name_runs_and_names_are_shown(open_report) -> None:
    page = open_report(hostile_scan(), hostile_scan())
    for grouping in ("all together", "each type"):
        page.page.get_by_role("radio", name=grouping).click()
        page.settle()
    page.page.get_by_label("search modules").fill("img")
    for index in range(0, page.run("spectrumReport.app.scans[0].size"), 5):
        page.run("(index) => spectrumReport.pick(index, false)", index)
    page.page.wait_for_timeout(200)
    assert page.run("window.pwned") is None
    assert page.run("document.querySelectorAll('main img, main script, main iframe, header img').length") == 0
    assert page.run("document.querySelectorAll('[onerror], [onmouseover], main a[href], svg a').length") == 0
    assert page.run("({}).polluted") is None
    assert page.page.locator("h1").inner_text() == scans.HOSTILE[1]
    assert page.page.title().startswith(scans.HOSTILE[1][:80])
    cells = page.page.locator(".row .cell-name").all_inner_texts()
    assert scans.HOSTILE[1] in cells
    labels = page.run("[...document.querySelectorAll('#heatmap .plot .ytick text')].map((node) => node.textContent)")
    assert any(label.startswith("<img src=x") for label in labels)
    assert (
        page.run("document.querySelectorAll('#heatmap .plot .ytick text a, #heatmap .ytick text [style*=bold]').length")
        == 0
    )
    # Hovering over a cell writes its name too.
    page.run("Plotly.Fx.hover(document.querySelector('#heatmap .plot'), [{ curveNumber: 0, pointNumber: [1, 0] }])")
    assert page.run("window.pwned") is None


def test_invisible_characters_are_spelled_out_and_long_names_cut(open_report) -> None:
    page = open_report(hostile_scan())
    noted = next(i for i, module in enumerate(page.scan.modules) if module.note == "evil\u202egnp.txt")
    page.run("(index) => spectrumReport.pick(index, false)", noted)
    page.settle()
    assert "evil\\u202egnp.txt" in page.page.locator("#facts").inner_text()
    page.page.get_by_label("search modules").fill("nnnnnnnn")
    assert len(page.page.locator(".row .cell-name").first.inner_text()) <= 160
    page.page.locator(".row").first.click()
    assert page.run("document.documentElement.scrollHeight") < 5000
    assert page.run("document.documentElement.scrollWidth") <= 1280


def test_the_policy_is_a_second_wall(open_report) -> None:
    """Even if markup got in: no inline script, no handler, no request."""
    page = open_report(scans.dense_model(layers=3))
    page.run(
        """() => {
          const place = document.createElement('div');
          document.body.append(place);
          place.innerHTML = '<img src="http://127.0.0.1:9/x" onerror="window.pwned=1">'
            + '<a href="javascript:window.pwned=2">x</a>';
          const script = document.createElement('script');
          script.textContent = 'window.pwned = 3';
          document.body.append(script);
          place.querySelector('a').click();
        }"""
    )
    page.page.wait_for_timeout(200)
    assert page.run("window.pwned") is None
    refused = [text for text in page.complaints if "Content Security Policy" in text]
    assert len(refused) >= 3
    assert page.complaints == refused
    page.complaints.clear()
    page.requests[:] = [url for url in page.requests if "127.0.0.1:9" not in url]


def test_no_byte_of_a_name_is_in_the_file() -> None:
    scan = hostile_scan()
    payload = build_payload([scan], top_percent=25, labels=make_labels([scan], ["f"]))
    page = render_page(payload, "title")
    assert "pwned" not in page
    assert "onerror" not in page
    assert page.count("<script") == page.count("</script>") == 3


def test_the_pages_code_never_parses_text_as_markup() -> None:
    code = "\n".join(path.read_text() for path in sorted(ASSETS.glob("*.js")))
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "hovertemplate",
        "texttemplate",
    ):
        assert way not in code, way


def test_a_title_is_escaped() -> None:
    payload = build_payload([scans.dense_model(layers=2)], top_percent=25, labels=["x"])
    assert "<title>&lt;/title&gt;&lt;script&gt;x%%DATA%%</title>" in render_page(payload, "</title><script>x%%DATA%%")


@pytest.mark.parametrize("name", scans.HOSTILE)
def test_no_name_moves_a_terminals_cursor(name: str) -> None:
    from spectrum_fast.use.report.layout import printable

    assert all(ord(letter) >= 32 and ord(letter) != 127 for letter in printable(name))
