"""Evaluate a run with lm-evaluation-harness and keep the result as ``results.json`` beside it."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spectrum_fast.errors import BackendUnavailableError, CheckpointError, UsageError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.strict_json import parse_json

DEFAULT_TASKS = ("arc_easy", "gsm8k", "hellaswag", "mmlu")
RESULTS_NAME = "results.json"
_ADAPTER_CONFIG = "adapter_config.json"


def evaluate(
    run: str | Path,
    tasks: Sequence[str] = DEFAULT_TASKS,
    *,
    few_shot: int | None = None,
    limit: int | None = None,
    batch_size: str = "auto",
    device: str | None = None,
    dtype: str = "auto",
    seed: int = 1234,
) -> dict[str, Any]:
    """Run benchmarks on a trained model or adapter.

    The model is loaded by transformers without code of its own; an adapter is put on the base that it names. A task
    file may name Python functions of its folder, which the harness runs: evaluate only task files that you trust.

    Args:
        run: folder of a run, or of any Hugging Face checkpoint or PEFT adapter.
        tasks: names known to the harness, or paths of its YAML task files.
        few_shot: examples before each question; None for what the task says.
        limit: questions a task; None for all.
        batch_size: a number, or ``auto``.
        device: torch device; None for a GPU if there is one.
        dtype: of the weights; ``auto`` for the stored one.
        seed: of the harness's random choices.

    Returns:
        what was written to ``results.json``: ``{"schema": 1, "kind": "evaluation", "run", "tasks": {name: {metric:
        value}}, "settings", "versions", "created"}``.

    Raises:
        BackendUnavailableError: lm-evaluation-harness is not installed.
        CheckpointError: the folder holds no model, or it cannot be loaded.
        UsageError: a task is not known, its data cannot be had, or a value is out of range.
    """
    folder = Path(run)
    arguments = _model_arguments(folder, dtype)
    names, folders = _read_tasks(tasks)
    if not names:
        raise UsageError("there is no task to evaluate")
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected a whole number of 1 or more, found {limit}")
    try:
        import torch
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise BackendUnavailableError(
            f"evaluation needs lm-evaluation-harness ({error}); install spectrum-fast[eval,train]"
        ) from error
    manager = TaskManager(include_path=folders or None, include_defaults=len(folders) == 0 or len(names) > len(folders))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise UsageError(
            f"unknown task {unknown[0]!r}: expected a name that lm-eval knows (lm-eval ls tasks) or a file"
        )
    try:
        found = evaluator.simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=list(names),
            num_fewshot=few_shot,
            batch_size=batch_size if batch_size == "auto" else _positive(batch_size),
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{folder}: evaluation of {', '.join(names)} failed: {error}; without a network the data of the tasks must "
            "be in the cache, or name a local task file"
        ) from error
    document = {
        "schema": 1,
        "kind": "evaluation",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": folder.name,
        "method": _method(folder),
        "tasks": {name: _plain(values) for name, values in (found or {}).get("results", {}).items()},
        "settings": {"few_shot": few_shot, "limit": limit, "dtype": dtype, "seed": seed},
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
        document = parse_json(read_text(adapter, error=CheckpointError), str(adapter), CheckpointError)
        base = document.get("base_model_name_or_path") if isinstance(document, dict) else None
        if not isinstance(base, str) or not base:
            raise CheckpointError(f"{adapter}: expected the base model under base_model_name_or_path, found {base!r}")
        tokenizer = folder if (folder / "tokenizer_config.json").is_file() else base
        return {"pretrained": base, "peft": str(folder), "tokenizer": str(tokenizer), "dtype": dtype}
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: expected config.json or {_ADAPTER_CONFIG}, found neither; is the run finished?"
        )
    return {"pretrained": str(folder), "dtype": dtype}


def _method(folder: Path) -> str | None:
    """The method that ``run.json`` names, if there is one."""
    path = folder / "run.json"
    if not path.is_file():
        return None
    document = parse_json(read_text(path, error=CheckpointError), str(path), CheckpointError)
    method = document.get("method") if isinstance(document, dict) else None
    return method if isinstance(method, str) else None


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
