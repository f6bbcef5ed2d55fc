"""``spectrum-fast eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import say, show


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, a checkpoint or an adapter.")],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Task, or a YAML task file; default arc_easy, gsm8k, hellaswag, mmlu."),
    ] = None,
    few_shot: Annotated[int | None, typer.Option(metavar="N", help="Examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Questions a task.")] = None,
    batch_size: Annotated[str, typer.Option(metavar="N", help="auto, or a number.")] = "auto",
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1; default: a GPU.")] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="Of the weights; auto is the stored one.")] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the harness's random choices.")] = 1234,
) -> None:
    """Evaluate a run with lm-evaluation-harness; writes results.json beside it.

    \b
    Example: spectrum-fast eval runs/spectrum --task arc_easy --limit 200
    """
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
    from spectrum_fast.use.evaluation import DEFAULT_TASKS
    from spectrum_fast.use.evaluation import evaluate as run_evaluation
    from spectrum_fast.use.report.layout import add_row, plain_table

    found = run_evaluation(
        run,
        task or DEFAULT_TASKS,
        few_shot=few_shot,
        limit=limit,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    table = plain_table("task", "metric", "value", words=("metric",))
    for name, values in found["tasks"].items():
        for key, value in values.items():
            if isinstance(value, float) and "stderr" not in key:
                add_row(table, name, key, f"{value:.4f}")
    show(table)
    say(f"wrote {run / 'results.json'}")
