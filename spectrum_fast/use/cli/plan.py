"""``spectrum-fast plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli.consoles import show

if TYPE_CHECKING:
    from spectrum_fast.choose.planner import MemoryPlan

HELP = """Predict the memory of a training run, from the checkpoint's headers alone.

\b
Example: spectrum-fast plan MODEL --gpus 8 --zero 3 --fit 40"""
_WITH_A_FILE = {"model", "gpus", "fit", "as_json"}


def plan(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Checkpoint folder, hub id, or the YAML of a run.")],
    gpus: Annotated[int, typer.Option(metavar="N", help="Processes, one a GPU.")] = 1,
    zero: Annotated[int, typer.Option(metavar="0|2|3", help="ZeRO stage; 0 is plain torch.")] = 3,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="full, lora, qlora, spectrum, spectrum-lora, spectrum-qlora, random...")
    ] = "spectrum",
    scan: Annotated[Path | None, typer.Option(metavar="FILE", help="Scan to select from.")] = None,
    selection: Annotated[Path | None, typer.Option(metavar="FILE", help="The modules, already selected.")] = None,
    top_percent: Annotated[float, typer.Option(metavar="P", help="Share of each module type.")] = 25.0,
    fit: Annotated[float | None, typer.Option(metavar="GIB", help="Find the largest share that fits.")] = None,
    always: Annotated[str, typer.Option(metavar="RULE", help="default (embeddings, head) or none.")] = "default",
    seq_len: Annotated[int, typer.Option(metavar="N", help="Tokens a sequence.")] = 2048,
    micro_batch: Annotated[int, typer.Option(metavar="N", help="Sequences a GPU and pass.")] = 1,
    accumulate: Annotated[int, typer.Option(metavar="N", help="Micro-batches a step.")] = 1,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Keep only the inputs of layers.")
    ] = False,
    fsdp2: Annotated[bool, typer.Option("--fsdp2", help="FSDP2; with --zero 0.")] = False,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="Of frozen weights: bf16, fp16 or fp32.")] = "bf16",
    autocast: Annotated[
        bool, typer.Option(help="Without ZeRO: trained weights float32, arithmetic of 16 bits.")
    ] = True,
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="adamw, adamw-8bit, lion, sgd.")] = "adamw",
    offload: Annotated[str, typer.Option(metavar="WHAT", help="none, optimizer or all.")] = "none",
    attention: Annotated[str, typer.Option(metavar="NAME", help="flash (SDPA too) or eager.")] = "flash",
    loss: Annotated[str, typer.Option(metavar="NAME", help="logits (whole) or fused.")] = "logits",
    lora_rank: Annotated[int, typer.Option(metavar="R", help="Rank of adapters.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Predict and print."""
    from spectrum_fast.choose.planner import TrainingSetup, fit_percent, plan_memory, read_model_shape
    from spectrum_fast.choose.planner.memory import GIB
    from spectrum_fast.choose.selection.formats import load_selection
    from spectrum_fast.measure.scoring.scan_file import read_scan
    from spectrum_fast.read.checkpoint import open_checkpoint

    if scan is not None and selection is not None:
        raise UsageError("--scan and --selection both say which modules are trained; give one of them")
    if selection is not None and fit is not None:
        raise UsageError("--fit looks for a share, and --selection has fixed the modules; give --scan instead")
    if fit is not None and not 0 < fit < 1e6:
        raise UsageError(f"--fit: expected GiB of one GPU, found {fit:g}")
    if model.endswith((".yaml", ".yml")):
        given = [
            name
            for name in context.params
            if name not in _WITH_A_FILE and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')}: {model} says it; drop the option or change the file")
        from spectrum_fast.use.training.planned import plan_run

        found, limit = plan_run(model, gpus, fit), None if fit is None else int(fit * GIB)
        return _show(found, limit, as_json)
    setup = TrainingSetup(
        method=method,
        gpus=gpus,
        zero=zero,
        fsdp2=fsdp2,
        autocast=autocast,
        dtype=dtype,
        optimizer=optimizer,
        offload=offload,
        seq_len=seq_len,
        micro_batch=micro_batch,
        gradient_accumulation=accumulate,
        checkpointing="layer" if gradient_checkpointing else "none",
        attention=attention,
        loss=loss,
        lora_rank=lora_rank,
    )
    shape = read_model_shape(open_checkpoint(model))
    scores = None if scan is None else read_scan(scan)
    limit = None if fit is None else int(fit * GIB)
    if limit is None:
        chosen = None if selection is None else load_selection(selection)
        found = plan_memory(shape, setup, scan=scores, selection=chosen, top_percent=top_percent, always=always)
    else:
        found = fit_percent(shape, setup, limit, scan=scores, always=always)
    return _show(found, limit, as_json)


def _show(found: MemoryPlan, limit: int | None, as_json: bool) -> None:
    from spectrum_fast.use.report.plan_table import plan_table

    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, allow_nan=False))
    else:
        show(plan_table(found, limit))
