"""One module as a picture."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.spectra.record import SingularValues

if TYPE_CHECKING:
    import plotly.graph_objects


class PlottedModule:
    """What a module of a scan shows of itself."""

    name: str
    threshold: float | None
    histogram: Any
    singular_values: SingularValues | None

    def plot(self) -> plotly.graph_objects.Figure:
        """Its singular values: all of them by rank where they are stored, else as a histogram; and its threshold.

        Raises:
            UsageError: plotly is not installed, or the scan holds no spectrum.
        """
        go = require_plotly()
        figure = go.Figure(layout={"title": self.name, "template": "simple_white"})
        if self.singular_values is not None:
            figure.add_scatter(y=self.singular_values.values, mode="lines", name="singular values")
            figure.update_layout(xaxis_title="rank", yaxis_title="singular value")
            mark = figure.add_hline
        elif self.histogram is not None:
            edges, counts = self.histogram.edges, self.histogram.counts
            widths = [high - low for low, high in pairwise(edges)]
            heights = [count / width if width else 0 for count, width in zip(counts, widths, strict=True)]
            figure.add_bar(x=edges[:-1], y=heights, width=widths, offset=0, name="singular values")
            figure.update_layout(xaxis_title="singular value", yaxis_title="density")
            mark = figure.add_vline
        else:
            raise UsageError(f"{self.name}: expected a spectrum, found none in the scan; scan again with this version")
        if self.threshold is not None:
            mark(self.threshold, line={"dash": "dash", "width": 1}, opacity=1, annotation_text="threshold")
        return figure


def require_plotly() -> Any:
    """``plotly.graph_objects``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as missing:
        raise UsageError("plots need the package plotly; install it: pip install 'spectrum-fast[report]'") from missing
    return go
