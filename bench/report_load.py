"""How long a report of 45,000 modules takes: to write, to open in Chromium, and to follow the slider.

    python -m bench.report_load [--rounds N] [--out FILE]

The scan has the names and shapes of a DeepSeek-V3 (61 layers, 256 experts), random scores and random histograms. Beside
it stands a page with nothing but the plotting library, for most of the time to open any report is the library's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine_header
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.use.report.html.page import plotly_library
from spectrum_fast.use.report.html.write import write_report

_ATTENTION = {"q_a_proj": (1536, 7168), "q_b_proj": (24576, 1536), "kv_b_proj": (32768, 512), "o_proj": (7168, 16384)}
_MLP = {"gate_proj": (2048, 7168), "up_proj": (2048, 7168), "down_proj": (7168, 2048)}
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
_READY = "html[data-ready], html[data-failed]"
_SLIDE = """async () => {
  const frames = [];
  for (let percent = 20; percent < 30; percent += 1) {
    const from = performance.now();
    spectrumReport.setPercent(percent);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    frames.push(performance.now() - from);
  }
  return frames;
}"""


def deepseek_sized_scan(layers: int = 61, experts: int = 256) -> Scan:
    """Names and shapes of the model, everything else random."""
    rng = np.random.default_rng(0)
    names: list[tuple[str, tuple[int, int]]] = [("model.embed_tokens", (129280, 7168)), ("lm_head", (129280, 7168))]
    for layer in range(layers):
        start = f"model.layers.{layer}."
        names += [(f"{start}self_attn.{kind}", shape) for kind, shape in _ATTENTION.items()]
        owners = [""] if layer < 3 else ["shared_experts.", *(f"experts.{expert}." for expert in range(experts))]
        names += [(f"{start}mlp.{owner}{kind}", shape) for owner in owners for kind, shape in _MLP.items()]
    return Scan("deepseek-sized", "spectrum", tuple(_random_score(name, shape, rng) for name, shape in names))


def _random_score(name: str, shape: tuple[int, int], rng: np.random.Generator) -> ModuleScore:
    s_min, q25, q50, q75, s_max = np.array([0.02, 0.6, 0.8, 1.1, 6.0]) * rng.uniform(0.9, 1.1)
    counts = rng.multinomial(min(shape), np.full(64, 1 / 64))
    return ModuleScore(
        name=name,
        type=module_type(name),
        parameter=f"{name}.weight",
        shape=shape,
        dtype="F8_E4M3",
        snr=float(np.exp(rng.normal())),
        s_min=s_min,
        q25=q25,
        q50=q50,
        q75=q75,
        s_max=s_max,
        threshold=0.5,
        signal_sum=2.0,
        noise_sum=1.0,
        n_signal=min(shape) // 2,
        n_noise=min(shape) - min(shape) // 2,
        error_bound=1e-5,
        method="band-float32",
        histogram=Histogram(0.0, 2.6, s_max, 48, tuple(counts.tolist())),
    )


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Write the page once, open it and the bare library some times."""
    from playwright.sync_api import sync_playwright

    scan = deepseek_sized_scan()
    started = time.perf_counter()
    write_report([scan], folder / "report.html")
    write_seconds = time.perf_counter() - started
    bare = (
        f"<!doctype html><script>{plotly_library()}</script><script>document.documentElement.dataset.ready=1</script>"
    )
    (folder / "bare.html").write_text(bare, encoding="utf-8")
    marks: dict[str, list[float]] = {"ready": [], "words": [], "library": [], "bare_library": [], "slider_frame": []}
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        for _ in range(rounds):
            for name in ("bare", "report"):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto((folder / f"{name}.html").as_uri())
                page.wait_for_selector(_READY, state="attached", timeout=120_000)
                if name == "bare":
                    timing = "performance.getEntriesByType('navigation')[0].domInteractive"
                    marks["bare_library"].append(page.evaluate(timing))
                else:
                    marks["ready"].append(float(page.evaluate("document.documentElement.dataset.ready")))
                    for mark in ("words", "library"):
                        marks[mark].append(page.evaluate(f"performance.getEntriesByName('{mark}')[0].startTime"))
                    marks["slider_frame"].append(statistics.median(page.evaluate(_SLIDE)))
                page.close()
        version = browser.version
        browser.close()
    return {
        "modules": len(scan.modules),
        "chromium": version,
        "file_bytes": (folder / "report.html").stat().st_size,
        "write_seconds": round(write_seconds, 2),
        "rounds": rounds,
        **{f"{name}_ms": round(statistics.median(values), 1) for name, values in marks.items()},
    }


def main() -> None:
    """Measure, print, and write the file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.rounds)
    text = json.dumps({"schema": 1, "machine": machine_header(), **found}, indent=1) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
