"""A web page that takes a hub id and shows the report of its scan; a space on the hub, or `python app.py` anywhere.

A scan that the library holds is shown from there; any other model is read over the network and scored, and nothing of
its weights is kept. No model code is run and nothing is unpickled.

Environment: ``LIBRARY``, a folder of scans or a hub dataset (``org/name``), none if empty; ``LARGEST_GIB``, the most
that is read of a model, 20 if not set.
"""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

import spectrum_fast as sf
from spectrum_fast.choose.library import open_library
from spectrum_fast.choose.library.file_names import slug
from spectrum_fast.read.checkpoint.hub import parse_hub_id
from spectrum_fast.scanning import ScanProgress
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.scoring import open_and_plan
from spectrum_fast.use.report.html.write import write_report

LIBRARY = os.environ.get("LIBRARY", "")
LARGEST_GIB = float(os.environ.get("LARGEST_GIB", "20"))
CRITERIA = ("spectrum", "mp")
STYLE = "width: 100%; height: 85vh; border: 0"

WORDS = f"""# spectrum_fast
Which weight matrices of a model carry signal? Give a model of the hub, `org/name` or `org/name@revision`, stored as
safetensors or GGUF; up to {LARGEST_GIB:g} GiB of matrices are read, none of them kept, and no code of the model is run.
"""


def find_scan(model: str, criterion: str, progress: gr.Progress) -> tuple[sf.Scan, str]:
    """The scan of a model, from the library or made now, and a sentence that says which.

    Raises:
        SpectrumFastError: no hub id, nothing there that can be read, or more than the limit.
    """
    name, _, revision = model.partition("@")
    if parse_hub_id(model) is None or Path(name).exists():
        raise sf.SpectrumFastError(f"expected a model of the hub, org/name or org/name@revision, found {model[:80]!r}")
    if LIBRARY and not revision:
        library = open_library(LIBRARY)
        if (slug(name), criterion) in {(entry.slug, entry.criterion) for entry in library.entries(read=False)}:
            scan = library.load(name, criterion)
            return scan, f"From the library, a scan of {scan.model}."
    return scan_from_hub(name, revision or "main", criterion, progress)


def scan_from_hub(name: str, revision: str, criterion: str, progress: gr.Progress) -> tuple[sf.Scan, str]:
    """Scan a model range by range over the network."""

    def show(step: ScanProgress) -> None:
        progress((step.done, step.total), desc=step.name, unit="matrices")

    source = f"{name}@{revision}"
    options = ScanOptions(criterion=criterion, no_store=True)
    checkpoint, plan = open_and_plan(source, options)
    if plan.total_bytes > LARGEST_GIB * 2**30:
        raise sf.SpectrumFastError(
            f"{source}: expected at most {LARGEST_GIB:g} GiB of matrices to read here, found "
            f"{plan.total_bytes / 2**30:.1f}; scan it on a machine of yours: spectrum-fast scan {source} --no-store"
        )
    scan = sf.scan(source, criterion=criterion, no_store=True, progress=show)
    return scan, f"Scanned now: {'; '.join(checkpoint.notes)}."


def answer(model: str, criterion: str, progress: gr.Progress = gr.Progress()) -> Iterator[tuple[str, str, list[str]]]:  # noqa: B008
    """What is shown of a model: a sentence, its report in a frame of its own, and both files."""
    model = model.strip()
    try:
        scan, words = find_scan(model, criterion, progress)
        # Gradio copies what is given to it before it goes on here, and deletes the copies (`delete_cache`).
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "scan.json"), Path(folder, "report.html")
            scan.save(files[0])
            write_report([scan], files[1])
            # Sandboxed: a stranger's names are text to the report; were they not, this page is out of their reach.
            page = html.escape(files[1].read_text(encoding="utf-8"), quote=True)
            frame = f'<iframe style="{STYLE}" sandbox="allow-scripts allow-downloads" srcdoc="{page}"></iframe>'
            unscored = f" {len(scan.failures)} tensors have no score." if scan.failures else ""
            yield f"{len(scan.modules)} matrices. {words}{unscored}", frame, [str(file) for file in files]
    except sf.SpectrumFastError as error:
        raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error


with gr.Blocks(title="spectrum_fast", delete_cache=(3600, 3600), analytics_enabled=False) as page:
    gr.Markdown(WORDS)
    with gr.Row():
        wanted = gr.Textbox(label="Model", placeholder="HuggingFaceTB/SmolLM2-135M", max_length=200, scale=3)
        criterion = gr.Radio(CRITERIA, value=CRITERIA[0], label="Criterion")
        button = gr.Button("Show", variant="primary")
    said = gr.Textbox(label="What was done", interactive=False)
    shown = gr.HTML()
    kept = gr.File(label="The scan, and the report as one page", file_count="multiple", interactive=False)
    # One at a time: a scan takes every core and as much of the network as there is.
    gr.on(
        [button.click, wanted.submit],
        answer,
        [wanted, criterion],
        [said, shown, kept],
        api_name="scan",
        concurrency_limit=1,
        concurrency_id="scan",
    )

if __name__ == "__main__":
    page.queue(max_size=20).launch()
