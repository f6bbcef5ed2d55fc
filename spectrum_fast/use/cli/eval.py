"""``spectrum-fast eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import say, show
from spectrum_fast.use.cli.options import with_options
from spectrum_fast.use.evaluation import EvaluationOptions
from spectrum_fast.use.evaluation import evaluate as run_evaluation


@with_options
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, a checkpoint or an adapter.")],
    options: EvaluationOptions,
) -> None:
    """Evaluate a run with lm-evaluation-harness; writes results.json beside it.

    \b
    Example: spectrum-fast eval runs/spectrum --task arc_easy --limit 200
    """
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
    from spectrum_fast.use.report.layout import add_row, plain_table

    found = run_evaluation(run, **vars(options))
    table = plain_table("task", "metric", "value", words=("metric",))
    for name, values in found["tasks"].items():
        for key, value in values.items():
            if isinstance(value, float) and "stderr" not in key:
                add_row(table, name, key, f"{value:.4f}")
    show(table)
    say(f"wrote {run / 'results.json'}")
