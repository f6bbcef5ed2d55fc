"""``spectrum-fast plan``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli.consoles import show
from spectrum_fast.use.cli.options import with_options

_WITH_A_FILE = {"model", "gpus", "fit", "as_json"}


@with_options
def plan(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Checkpoint folder, hub id, or the YAML of a run.")],
    setup: TrainingSetup,
    scan: Annotated[Path | None, typer.Option(metavar="FILE", help="Scan to select from.")] = None,
    selection: Annotated[Path | None, typer.Option(metavar="FILE", help="The modules, already selected.")] = None,
    top_percent: Annotated[float, typer.Option(metavar="P", help="Share of each module type.")] = 25.0,
    fit: Annotated[float | None, typer.Option(metavar="GIB", help="Find the largest share that fits.")] = None,
    always: Annotated[str, typer.Option(metavar="RULE", help="default (embeddings, head) or none.")] = "default",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Keep only the inputs of layers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Predict the memory of a training run, from the checkpoint's headers alone.

    \b
    Example: spectrum-fast plan MODEL --gpus 8 --zero 3 --fit 40
    """
    from spectrum_fast.choose.planner.memory import GIB, fit_percent, plan_memory, read_model_shape
    from spectrum_fast.use.report.plan_table import plan_table
    from spectrum_fast.use.training.planned import describe_run, trained_by

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
        model, setup, chosen = describe_run(model, setup.gpus)
    else:
        setup = replace(setup, checkpointing="layer") if gradient_checkpointing else setup
        chosen = trained_by(scan, selection, top_percent, always)
    shape = read_model_shape(model)
    limit = None if fit is None else int(fit * GIB)
    if limit is None:
        found = plan_memory(shape, setup, **chosen)
    else:
        found = fit_percent(shape, setup, limit, scan=chosen["scan"], always=chosen["always"])
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, allow_nan=False))
    else:
        show(plan_table(found, limit))
