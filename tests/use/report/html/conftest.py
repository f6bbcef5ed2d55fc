"""A real browser on real report files; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from spectrum_fast import Scan
from spectrum_fast.measure.scoring.records import ScanFailure
from spectrum_fast.use.report.html.write import write_report

from support import scans

READY = "html[data-ready], html[data-failed]"


class Page:
    """An open report and all that it complained about or asked for."""

    def __init__(self, page: Any, scans: Sequence[Scan]) -> None:
        self.page = page
        self.scans = list(scans)
        self.scan = scans[0]
        self.address = ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def run(self, code: str, argument: object = None) -> Any:
        """The value of an expression or of a function of ``argument``."""
        return self.page.evaluate(code, argument)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.wait_for_function("() => !spectrumReport.busy()")
        self.run("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def show(self, scan: Scan) -> Page:
        """Show this one of the report's scans, as a fresh page would."""
        place = next(index for index, other in enumerate(self.scans) if other is scan)
        self.run("(index) => spectrumReport.setScan(index)", place)
        self.scan = scan
        self.settle()
        return self


Open = Callable[..., Page]


@pytest.fixture(scope="session")
def write_and_open(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Write a report on these scans and open it.

    Loading the plotting library takes most of a test's time, so pages are shared where a test leaves nothing behind
    that another one would see.
    """

    def open_page(*shown: Scan, width: int = 1280, height: int = 900, scheme: str = "light", address: str = "") -> Page:
        target = tmp_path_factory.mktemp("report") / "report.html"
        write_report(shown, target)
        size = {"width": width, "height": height}
        page = Page(browser.new_page(viewport=size, color_scheme=scheme, accept_downloads=True), shown)
        page.address = target.as_uri()
        page.page.goto(f"{page.address}{address}")
        page.page.wait_for_selector(READY, state="attached", timeout=90_000)
        assert page.run("document.documentElement.dataset.failed") is None
        return page

    return open_page


def expect_quiet(page: Page) -> None:
    """Nothing was complained about and nothing fetched."""
    page.settle()
    complaints, requests = list(page.complaints), list(page.requests)
    page.complaints.clear()
    page.requests.clear()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.fixture
def open_report(write_and_open: Open) -> Iterator[Open]:
    """A page of its own for one test."""
    opened: list[Page] = []

    def open_page(*shown: Scan, **options: Any) -> Page:
        opened.append(write_and_open(*shown, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        expect_quiet(page)
        page.page.close()


GALLERY: dict[str, Scan] = {
    "dense": scans.dense_model(),
    "dense again": scans.dense_model(seed=1),
    "experts": scans.experts_model(spectra=True),
    "many experts": scans.experts_model(layers=12, experts=64),
    "fused": scans.fused_model(),
    "towers": scans.towers_model(),
    "published": replace(scans.dense_model(spectra=False), provenance={"source": "published"}),
    "many layers": scans.dense_model(layers=101, seed=3, spectra=False),
    "failed": scans.failed_model(),
    "no layers": scans.named_model("lm_head", "pooler.dense"),
    "all noise-free": scans.named_model(*(f"model.layers.{i}.norm" for i in range(5)), noise_free=True),
    "far layers": scans.named_model("model.layers.999999999.x", "model.layers.0.x"),
    "far experts": scans.named_model(*(f"layers.{i}.mlp.experts.{10**8 + j}.w" for i in (0, 1) for j in (0, 1))),
    "nothing scored": Scan(
        "none", "spectrum", (), failures=(ScanFailure(name="layers.1.x", kind="nan", message="NaN"),)
    ),
}
"""What the shared page holds."""


@pytest.fixture(scope="session")
def shared(write_and_open: Open) -> Page:
    """One page with all scans of the gallery."""
    return write_and_open(*GALLERY.values())


@pytest.fixture
def gallery(shared: Page) -> Iterator[Callable[[str], Page]]:
    """The shared page, showing one of its scans, at 25 % of each type."""

    def show(name: str) -> Page:
        shared.page.get_by_label("search modules").fill("-")  # so that emptying it is a change
        shared.page.get_by_label("search modules").fill("")
        shared.page.get_by_label("sort by layer").click()
        shared.page.get_by_label("sort by module").click()
        shared.page.get_by_role("radio", name="each type").click()
        shared.run("spectrumReport.setPercent(25)")
        return shared.show(GALLERY[name])

    yield show
    expect_quiet(shared)
