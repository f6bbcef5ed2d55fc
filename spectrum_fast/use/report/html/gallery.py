"""A library of scans as a folder of pages: one to search, and a report for each scan. Static; no server is needed."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from statistics import median
from urllib.parse import quote

from spectrum_fast.choose.library import Library, LibraryEntry
from spectrum_fast.choose.library.file_names import slug
from spectrum_fast.choose.selection.presented_scan import SHADES, places_by_layer, shade
from spectrum_fast.choose.selection.ranking import rank_modules
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import SpectrumFastError, UsageError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.use.report.html.page import asset, content_policy, fill_in
from spectrum_fast.use.report.html.write import write_report

REPORTS = "reports"
_MOST_TYPES = 9


def write_gallery(library: Library, folder: Path, *, top_percent: float = 25) -> dict[str, str]:
    """Write ``folder/index.html`` and a report for each scan of a library that can be read.

    Every page is written whole or not at all, the first one last: it never names a report that is not there.

    Returns:
        file -> why it is left out, for scans that cannot be shown.

    Raises:
        UsageError: the library holds no scan, or none that can be shown.
        BackendUnavailableError: plotly is not installed.
        SpectrumFastError: a page cannot be written.
    """
    entries = library.entries(read=False)
    if not entries:
        raise UsageError(f"{library.where}: expected scans, found no snr_results_*.json or scan_*.json")
    try:
        (folder / REPORTS).mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise UsageError(f"{folder}: expected a folder to write to, found none that can be made ({cause})") from cause
    rows, problems = [], {}
    for entry in entries:
        name = f"{entry.slug}.{entry.criterion}.html"
        try:
            scan = library.load(entry.slug, entry.criterion)
            if slug(scan.model) != entry.slug:  # filed under another name than that of the folder it was scanned in
                scan = replace(scan, model=entry.slug)
            write_report([scan], folder / REPORTS / name, top_percent=top_percent, files=[entry.files[0]])
        except (SpectrumFastError, ValueError) as error:
            problems[entry.files[0]] = str(error)
            continue
        rows.append(_row(entry, scan, f"{REPORTS}/{quote(name)}"))
    if not rows:
        raise UsageError(f"{library.where}: no scan can be shown: {next(iter(problems.values()))}")
    code = asset("gallery.js")
    page = {"POLICY": content_policy(code), "STYLE": asset("style.css"), "COUNT": str(len(rows)), "CODE": code}
    write_text_atomic(folder / "index.html", fill_in("gallery.html", page | {"ROWS": "\n".join(rows)}))
    return problems


def _row(entry: LibraryEntry, scan: Scan, address: str) -> str:
    """One scan: its map, name and figures, all of it a link to the report."""
    scores = [module.snr for module in scan.modules if module.snr is not None]
    middle = f", median {median(scores):.3g}" if scores else ""
    types = len(scan.by_type())
    words = f"{entry.criterion}: {len(scan.modules)} matrices of {types} types{middle}"
    name, words = html.escape(scan.model), html.escape(words)
    return f'<li class="panel"><a href="{address}">{_map(scan)}<b>{name}</b><span>{words}</span></a></li>'


def _map(scan: Scan) -> str:
    """Ranks as a picture: a row for each of the largest types, a column for each layer that it is in."""
    largest = sorted(scan.by_type().values(), key=len, reverse=True)[:_MOST_TYPES]
    rows = [places for places in (places_by_layer(rank_modules(modules)) for modules in largest) if places]
    layers = max((max(row) + 1 for row in rows), default=1)
    cells = "".join(
        f'<rect x="{layer}" y="{y}" width="1.05" height="1.05" fill="{SHADES[shade(place)]}"/>'
        for y, row in enumerate(rows)
        for layer, place in sorted(row.items())
    )
    size = f'viewBox="0 0 {layers} {max(len(rows), 1)}" preserveAspectRatio="none"'
    return f'<svg {size} role="img" aria-label="ranks by type and layer">{cells}</svg>'
