"""A scan in a notebook or a shell: as a frame, a picture, a table."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.ranking import rank_modules
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import quantities_of
from spectrum_fast.measure.scoring.module_plot import require_plotly
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.record import SUMMARY_FIELDS
from spectrum_fast.read.checkpoint.naming import layer_index

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from spectrum_fast.choose.selection.scan_result import Scan

SHADES = ("#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#d2e21b", "#fde725")
"""Steps of the viridis scale that are readable on dark and on light."""


def relation_of(scan: Scan) -> str:
    """What was taken from the model, or added to it; empty for a model alone."""
    pairs = ((word, scan.provenance.get(word)) for word in ("minus", "plus"))
    return "".join(f" {word} {base.get('model')}" for word, base in pairs if isinstance(base, Mapping))


def frame_of(scan: Scan) -> pandas.DataFrame:
    """A row a module, indexed by name: its type, layer and shape, every number of its spectrum, every quantity.

    Quantities of users are among them; what a module lacks is NaN, and no column where all lack it.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as missing:
        raise UsageError("to_frame needs the package pandas; install it: pip install pandas") from missing
    numbers = [key for key in SUMMARY_FIELDS if key not in ("errors", "histogram")]
    rows = [
        {"type": module.type, "layer": layer_index(module.name), "shape": module.shape, "dtype": module.dtype}
        | {key: getattr(module, key) for key in numbers}
        | {name.replace("-", "_"): value for name, value in quantities_of(module).items()}
        for module in scan.modules
    ]
    return pandas.DataFrame(rows, index=pandas.Index([module.name for module in scan.modules], name="name"))


def map_of(scan: Scan) -> plotly.graph_objects.Figure:
    """A map: types by layers, coloured by the place of a module among those of its type, 1 for the best.

    Raises:
        UsageError: plotly is not installed.
    """
    by_layer = {kind: places_by_layer(rank_modules(members)) for kind, members in scan.by_type().items()}
    rows = {kind: cells for kind, cells in by_layer.items() if cells}
    layers = sorted({layer for cells in rows.values() for layer in cells})
    places = [[cells.get(layer) for layer in layers] for cells in rows.values()]
    layout = {"title": f"{scan.model}{relation_of(scan)}, {scan.criterion}", "template": "simple_white"}
    figure = require_plotly().Figure(layout=layout)
    figure.add_heatmap(x=layers, y=list(rows), z=places, colorscale="Viridis", zmin=0, zmax=1, colorbar_title="place")
    return figure.update_layout(xaxis_title="layer").update_yaxes(autorange="reversed")


def html_of(scan: Scan) -> str:
    """A row a type with its best module and its map."""
    lines = []
    for kind, members in scan.by_type().items():
        ranked = rank_modules(members)
        best = ranked[0]
        score = "noise-free" if best.snr is None else f"{best.snr:.4g}"
        cells = sorted(places_by_layer(ranked).items())
        shades = "".join(
            f"<span title='layer {layer}' style='background:{SHADES[shade(place)]}'>&nbsp;</span>"
            for layer, place in cells
        )
        row = html.escape(kind), len(members), html.escape(best.name), score, shades
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    head = "<tr><th>type</th><th>modules</th><th>best</th><th>score</th><th>layers</th></tr>"
    return f"<p>{html.escape(repr(scan))}</p><table>{head}{''.join(lines)}</table>"


def places_by_layer(ranked: Sequence[ModuleScore]) -> dict[int, float]:
    """Layer -> mean place of its modules among these, from 1 for the first to 0 for the last."""
    found: dict[int, list[float]] = {}
    for place, module in enumerate(ranked):
        if (layer := layer_index(module.name)) is not None:
            found.setdefault(layer, []).append(1 - place / max(len(ranked) - 1, 1))
    return {layer: math.fsum(places) / len(places) for layer, places in found.items()}


def shade(place: float) -> int:
    """Which of :data:`SHADES` a place in [0, 1] has."""
    return min(int(place * len(SHADES)), len(SHADES) - 1)
