"""A scan in a notebook or a shell: as a sequence of modules, a line, a table, a frame, a picture."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import QuantityCriterion, criterion_names, find_criterion
from spectrum_fast.measure.scoring.module_plot import require_plotly
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.spectra.record import SUMMARY_FIELDS
from spectrum_fast.read.checkpoint.naming import layer_index, module_name
from spectrum_fast.words import near_names_text

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_STEPS = ("#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#d2e21b", "#fde725")


class PresentedScan:
    """What a scan does as a Python object, beside its fields."""

    model: str
    criterion: str
    modules: tuple[ModuleScore, ...]
    failures: tuple[ScanFailure, ...]
    ties: Mapping[str, str]

    def __len__(self) -> int:
        """How many modules have a score."""
        return len(self.modules)

    def __iter__(self) -> Iterator[ModuleScore]:
        """The modules, in scan order."""
        return iter(self.modules)

    def __getitem__(self, name: str) -> ModuleScore:
        """The module of this name; a parameter's name and that of a duplicate do too.

        Raises:
            KeyError: there is none; the message has the nearest names.
        """
        wanted = module_name(name)
        wanted = self.ties.get(wanted, wanted)
        for module in self.modules:
            if module.name == wanted:
                return module
        raise KeyError(f"no module {name!r}{near_names_text(wanted, [module.name for module in self.modules])}")

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<{type(self).__name__} of {self.model}: {len(self)} modules by {self.criterion}{failed}>"

    def to_frame(self) -> pandas.DataFrame:
        """A row a module, indexed by name: its type, layer and shape, every number of its spectrum, every quantity.

        Quantities of which the scan lacks something are left out, those of users included.

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
            for module in self.modules
        ]
        frame = pandas.DataFrame(rows, index=pandas.Index([module.name for module in self.modules], name="name"))
        for name in criterion_names():
            rule = find_criterion(name)
            if isinstance(rule, QuantityCriterion):
                values = _known(rule, self.modules)
                if values is not None:
                    frame[name.replace("-", "_")] = values
        return frame

    def plot(self) -> plotly.graph_objects.Figure:
        """A map: types by layers, coloured by the place of a module among those of its type, 1 for the best.

        Raises:
            UsageError: plotly is not installed.
        """
        rows = _places(self.modules)
        layers = sorted({layer for cells in rows.values() for layer in cells})
        places = [[cells.get(layer) for layer in layers] for cells in rows.values()]
        layout = {"title": f"{self.model}, {self.criterion}", "template": "simple_white"}
        figure = require_plotly().Figure(layout=layout)
        figure.add_heatmap(x=layers, y=list(rows), z=places, colorscale="Viridis", zmin=0, zmax=1)
        return figure.update_layout(xaxis_title="layer").update_yaxes(autorange="reversed")

    def _repr_html_(self) -> str:
        """For a notebook: a row a type with its best module and its map."""
        lines = []
        for kind, cells in _places(self.modules).items():
            members = [module for module in self.modules if module.type == kind]
            best = max(members, key=lambda module: module.rank_value)
            score = "noise-free" if best.snr is None else f"{best.snr:.4g}"
            shades = "".join(map(_cell, sorted(cells.items())))
            row = html.escape(kind), len(members), html.escape(best.name), score, shades
            lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
        head = "<tr><th>type</th><th>modules</th><th>best</th><th>score</th><th>layers</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{''.join(lines)}</table>"


def _places(modules: tuple[ModuleScore, ...]) -> dict[str, dict[int, float]]:
    """Type -> layer -> mean place of its modules among those of the type, from 0 (worst) to 1 (best)."""
    types: dict[str, list[ModuleScore]] = {}
    for module in modules:
        types.setdefault(module.type, []).append(module)
    found: dict[str, dict[int, float]] = {}
    for kind, members in types.items():
        ranked = sorted(members, key=lambda module: module.rank_value)
        layers: dict[int, list[float]] = {}
        for place, module in enumerate(ranked):
            layers.setdefault(layer_index(module.name) or 0, []).append(place / max(len(ranked) - 1, 1))
        found[kind] = {layer: math.fsum(places) / len(places) for layer, places in layers.items()}
    return found


def _cell(cell: tuple[int, float]) -> str:
    layer, place = cell
    colour = _STEPS[min(int(place * len(_STEPS)), len(_STEPS) - 1)]
    return f"<span title='layer {layer}' style='background:{colour}'>&nbsp;</span>"


def _known(rule: QuantityCriterion, modules: tuple[ModuleScore, ...]) -> list[float] | None:
    try:
        return [rule.measure(module)[0] for module in modules]
    except UsageError:
        return None
