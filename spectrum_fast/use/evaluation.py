"""Evaluate a run with lm-evaluation-harness and keep the result as ``results.json`` beside it."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from spectrum_fast.checks import POSITIVE
from spectrum_fast.errors import BackendUnavailableError, CheckpointError, UsageError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.strict_json import parse_json
from spectrum_fast.options import Option, Options, takes_options

DEFAULT_TASKS = ("arc_easy", "gsm8k", "hellaswag", "mmlu")
RESULTS_NAME = "results.json"
_ADAPTER_CONFIG = "adapter_config.json"
_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """The options of :func:`evaluate` and of the command ``eval``.

    Raises:
        UsageError: one is out of range.
    """

    tasks: Annotated[
        Sequence[str],
        Option(f"Task, or a YAML task file; default {', '.join(DEFAULT_TASKS)}.", metavar="NAME", flags=("--task",)),
    ] = DEFAULT_TASKS
    _: KW_ONLY
    few_shot: Annotated[
        int | None, Option("Examples before each question.", "None: what the task says.", metavar="N")
    ] = None
    limit: Annotated[int | None, Option("Questions a task.", "None: all.", metavar="N", check=POSITIVE)] = None
    batch_size: Annotated[str, Option("auto, or a number.", metavar="N")] = "auto"
    device: Annotated[str | None, Option("cpu, cuda, cuda:1; default: a GPU.", metavar="NAME")] = None
    dtype: Annotated[str, Option("Of the weights; auto is the stored one.", metavar="NAME")] = "auto"
    seed: Annotated[int, Option("Of the harness's random choices.", metavar="N")] = 1234


@takes_options(EvaluationOptions)
def evaluate(run: str | Path, options: EvaluationOptions) -> dict[str, Any]:
    """Run benchmarks on a trained model or adapter.

    The model is loaded by transformers without code of its own; an adapter is put on the base that it names. A task
    file may name Python functions of its folder, which the harness runs: evaluate only task files that you trust.

    Args:
        run: folder of a run, or of any Hugging Face checkpoint or PEFT adapter.
        options: keywords, each of :class:`EvaluationOptions`.

    Returns:
        what was written to ``results.json``: ``{"schema": 1, "kind": "evaluation", "run", "tasks": {name: {metric:
        value}}, "settings", "versions", "created"}``.

    Raises:
        BackendUnavailableError: lm-evaluation-harness is not installed.
        CheckpointError: the folder holds no model, or it cannot be loaded.
        UsageError: a task is not known, its data cannot be had, or a value is out of range.
    """
    folder = Path(run)
    arguments = _model_arguments(folder, options.dtype)
    names, folders = _read_tasks(options.tasks)
    if not names:
        raise UsageError("there is no task to evaluate")
    try:
        import torch
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise BackendUnavailableError(
            f"evaluation needs lm-evaluation-harness ({error}); install spectrum-fast[eval,train]"
        ) from error
    manager = TaskManager(include_path=folders or None, include_defaults=len(folders) == 0 or len(names) > len(folders))
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise UsageError(
            f"unknown task {unknown[0]!r}: expected a name that lm-eval knows (lm-eval ls tasks) or a file"
        )
    try:
        found = evaluator.simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=list(names),
            num_fewshot=options.few_shot,
            batch_size="auto" if options.batch_size == "auto" else _positive(options.batch_size),
            device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            limit=options.limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
            **dict.fromkeys(_SEEDS, options.seed),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{folder}: evaluation of {', '.join(names)} failed: {error}; without a network the data of the tasks must "
            "be in the cache, or name a local task file"
        ) from error
    record = folder / "run.json"
    document = {
        "schema": 1,
        "kind": "evaluation",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": folder.name,
        "method": _text_under("method", record) if record.is_file() else None,
        "tasks": {name: _plain(values) for name, values in (found or {}).get("results", {}).items()},
        "settings": {key: getattr(options, key) for key in ("few_shot", "limit", "dtype", "seed")},
        "versions": {name: importlib.metadata.version(name) for name in ("lm_eval", "transformers", "torch")},
    }
    write_text_atomic(
        folder / RESULTS_NAME, json.dumps(document, indent=2, allow_nan=False) + "\n", error=CheckpointError
    )
    return document


def _read_tasks(tasks: Sequence[str]) -> tuple[list[str], list[str | Path]]:
    """Names of the tasks, and the folders of those that are files."""
    files = {task: Path(task) for task in tasks if task.endswith((".yaml", ".yml"))}
    names = [_name_in(files[task]) if task in files else task for task in tasks]
    if len(set(names)) != len(names):
        raise UsageError(f"each task once: found {', '.join(names)}")
    return names, sorted({path.resolve().parent for path in files.values()})


def _name_in(path: Path) -> str:
    """The value of ``task:`` of a task file; tags such as ``!function`` are parsed, and nothing is made of them."""
    import yaml

    try:
        document: Any = yaml.compose(read_text(path, error=UsageError), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: expected a task file in YAML: {error}") from error
    entries = document.value if isinstance(document, yaml.MappingNode) else ()
    name = next((value.value for key, value in entries if key.value == "task"), None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: expected a task file with its name under `task`, found {name!r}")
    return name


def _model_arguments(folder: Path, dtype: str) -> dict[str, Any]:
    """The harness's description of the model: the folder itself, or the base of the adapter in it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected the folder of a run, found none; check the path")
    adapter = folder / _ADAPTER_CONFIG
    if adapter.is_file():
        if not (base := _text_under("base_model_name_or_path", adapter)):
            raise CheckpointError(f"{adapter}: expected the base model under base_model_name_or_path, found {base!r}")
        tokenizer = folder if (folder / "tokenizer_config.json").is_file() else base
        return {"pretrained": base, "peft": str(folder), "tokenizer": str(tokenizer), "dtype": dtype}
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: expected config.json or {_ADAPTER_CONFIG}, found neither; is the run finished?"
        )
    return {"pretrained": str(folder), "dtype": dtype}


def _text_under(key: str, path: Path) -> str | None:
    """The text that the JSON object in a file has under a key; None if it has none there."""
    document = parse_json(read_text(path, error=CheckpointError), str(path), CheckpointError)
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def _plain(values: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Finite numbers and the alias of a task's results; the harness writes ``metric,filter`` as key."""
    return {
        key: value
        for key, value in values.items()
        if key == "alias" or (type(value) in (int, float) and math.isfinite(value))
    }


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"batch_size: expected auto or a whole number of 1 or more, found {text!r}")
    return int(text)
