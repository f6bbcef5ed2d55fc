"""``spectrum-fast select``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_fast.choose.selection.options import BudgetOptions, RankOptions, SelectOptions
from spectrum_fast.errors import SelectionError, SpectrumFastError, UsageError
from spectrum_fast.use.cli.consoles import hand_out, say
from spectrum_fast.use.cli.options import Output, with_options
from spectrum_fast.words import size_of

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection


@with_options
def select(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file, ours or a published snr_results_*.json.")],
    options: SelectOptions,
    budget: BudgetOptions,
    ranks: RankOptions,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="json (default), axolotl, reference, reference-sorted, peft or names."
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="Write for this trainer, proved by its own rule on the running model: axolotl, peft, trl, ms-swift, "
            "llama-factory, automodel, soup or names.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="With --for or --budget: the checkpoint, if the scan does not say enough."),
    ] = None,
    output: Output = None,
) -> None:
    """Choose the best modules of each group from a scan.

    \b
    Example: spectrum-fast select scan.json --for axolotl -o unfrozen.yaml
    """
    from spectrum_fast.choose.selection.export.ambiguity import export_warnings
    from spectrum_fast.choose.selection.export.write import export_selection
    from spectrum_fast.choose.selection.formats import SCAN_FORMATS, write_scores, write_selection
    from spectrum_fast.choose.selection.model.scan_view import as_fused_in
    from spectrum_fast.choose.selection.model.skeleton import read_skeleton, skeleton_of_scan
    from spectrum_fast.choose.selection.scan_result import load_scan
    from spectrum_fast.choose.selection.select import select_with

    if output is not None and output.exists() and scan.exists() and output.samefile(scan):
        raise UsageError(f"--output {output}: expected another file than the scan that is read; choose another name")
    record = load_scan(scan)
    skeleton = None
    if reader is not None or budget.budget is not None:
        skeleton = skeleton_of_scan(record) if model is None else read_skeleton(model)
        if budget.budget is not None:
            from spectrum_fast.choose.planner.budget import fit_budget

            view = record if reader is None else as_fused_in(record, skeleton.module)
            options = fit_budget(view, skeleton, options, budget)
            say(f"budget {budget.budget}: {options.top_percent:g} % of each group is the largest share within it")
    if reader is not None and skeleton is not None:
        if output_format is not None:
            raise UsageError("--for decides the format; leave --format out")
        export = export_selection(record, reader, skeleton, options, ranks)
        memory = "" if export.reader.adapts else _memory_words(record, select_with(record, options), model)
        text, words = export.text, export.summary(str(output or "FILE"), memory)
        warnings = export_warnings(export.selection, record, "names")
    else:
        if ranks.ranks is not None:
            raise UsageError("--ranks says what PEFT's file holds; write it with --for peft")
        if model is not None and skeleton is None:
            raise UsageError("--model says whose names --for writes; name a reader with --for")
        output_format = output_format or "json"
        selection = select_with(record, options)
        if output_format in SCAN_FORMATS:
            text = write_scores(record, output_format)
        else:
            text = write_selection(selection, output_format)
        words = f"{selection.summary()}{_share_of_ends(record, selection)}" if output else ""
        warnings = export_warnings(selection, record, output_format)
    hand_out(text, output, SelectionError)
    if words:
        say(words)
    for warning in warnings:
        say(f"warning: {warning}", style="yellow")


def _share_of_ends(record: Scan, selection: Selection) -> str:
    """A line on the share of embeddings and head, where the scan has all shapes."""
    from spectrum_fast.choose.selection.export.write import ends_words

    shapes = {module.name: module.shape for module in record.modules}
    ends = [shapes[name] for name in selection.always if name in shapes]  # not those that are tied to others
    chosen = [module.shape for module in selection.modules]
    if not ends or None in ends or None in chosen:
        return ""
    counts = [sum(math.prod(shape or ()) for shape in found) for found in (ends, chosen)]
    return f"\ntrains {sum(counts):,} parameters, {ends_words(counts[0], sum(counts))}"


def _memory_words(record: Scan, selection: Selection, model: str | None) -> str:
    """What training it takes, where the checkpoint's headers are at hand; nothing is fetched for this."""
    from spectrum_fast.choose.planner.budget import TOKENS
    from spectrum_fast.choose.planner.memory import plan_memory, read_model_shape
    from spectrum_fast.choose.planner.setup import TrainingSetup

    source = model or str(record.provenance.get("checkpoint"))
    if model is None and not Path(source).exists():
        return ""
    try:
        shape = read_model_shape(source)
        one, each = (
            plan_memory(shape, TrainingSetup(gpus=gpus, seq_len=TOKENS), selection=selection).peak for gpus in (1, 2)
        )
    except SpectrumFastError:  # a model whose layers or names the planner does not know
        return ""
    return (
        f"training it takes about {size_of(one)} on one GPU, {size_of(each)} on each of two (bfloat16, AdamW, ZeRO-3, "
        f"{TOKENS} tokens; other runs: spectrum-fast plan)"
    )
