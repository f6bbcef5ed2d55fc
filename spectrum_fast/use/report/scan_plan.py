"""What a scan would do, as a person reads it before it is done."""

from __future__ import annotations

from rich.console import RenderableType

from spectrum_fast.choose.selection.ranking import group_name
from spectrum_fast.measure.scoring.stored_spectra import spectra_bytes
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.read.checkpoint.towers import find_towers
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.prediction import Prediction
from spectrum_fast.use.report.layout import add_row, page, plain_table
from spectrum_fast.use.report.progress import format_bytes, format_left
from spectrum_fast.use.report.table import shared_shape, what_is_left_out
from spectrum_fast.words import count_of


def scan_plan_table(
    checkpoint: Checkpoint, plan: ScanPlan, prediction: Prediction, *, spectra: bool = False
) -> RenderableType:
    """A line a type and tower: how many matrices, of which shapes and formats, and their bytes; then what to know."""
    towers = find_towers([weight.name for weight in plan.weights], checkpoint.config)
    groups: dict[str, list[WeightPlan]] = {}
    for weight in plan.weights:
        group = group_name(module_type(weight.name), "experts-merged", towers[weight.name], weight.name)
        groups.setdefault(group, []).append(weight)
    table = plain_table("type", "matrices", "shape", "stored as", "bytes", words=("stored as",))
    for name, members in groups.items():
        shape = shared_shape(weight.matrix_shape for weight in members)
        formats = sorted({weight.layout or weight.main.dtype for weight in members})
        size = format_bytes(sum(weight.nbytes for weight in members))
        add_row(table, name, f"{len(members):,}", shape, ", ".join(formats), size)
    title = (
        f"{checkpoint.name}: {count_of(len(plan.weights), 'matrix', 'matrices')} to score, "
        f"{format_bytes(plan.total_bytes)} of {format_bytes(checkpoint.total_bytes)} in "
        f"{count_of(len(checkpoint.files), 'file')}"
    )
    equal = {weight.name: original for weight, original in plan.copies}
    lines = [
        *what_is_left_out({**plan.ties, **equal}, plan.skipped, checkpoint.notes),
        *(f"warning: will have no score: {failure.message}" for failure in plan.refused),
        *([spectra_words(plan)] if spectra else []),
        _time_words(prediction),
    ]
    return page(title, "", table, "", *lines)


def spectra_words(plan: ScanPlan) -> str:
    """What all singular values of the matrices will take beside the scan file, where the headers tell the shapes."""
    shapes = [weight.matrix_shape or weight.main.shape for weight in plan.weights]
    size = spectra_bytes(min(shape[-2:]) if len(shape) > 1 else 1 for shape in shapes)
    return f"all singular values will take {format_bytes(size)} beside the scan file"


def _time_words(prediction: Prediction) -> str:
    bound = "scoring" if prediction.compute_seconds >= prediction.read_seconds else "reading"
    told = "one of each shape was read and scored just now"
    if prediction.tried < prediction.kinds:
        told = f"{prediction.tried} of {prediction.kinds} shapes were tried just now, the larger are told by their work"
    return f"time: about {format_left(prediction.seconds)} on this machine as it is now, bound by {bound} ({told})"
