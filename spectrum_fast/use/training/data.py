"""The data of a run: a local file or folder, a hub id, or TRL's mixture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectrum_fast.errors import UsageError


def load_data(script: Any, mixture: Any, source: str, *, evaluate: bool) -> tuple[Any, Any]:
    """Training and evaluation data; the second is None unless ``evaluate``.

    Args:
        script: TRL's ``ScriptArguments``.
        mixture: TRL's ``DatasetMixtureConfig``.
        source: the configuration, for messages.
        evaluate: whether the run evaluates.

    Raises:
        UsageError: nothing is found, a split is missing, or there is no row to train on.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from trl import get_dataset  # pyright: ignore[reportPrivateImportUsage]

    try:
        if mixture.datasets:
            for part in mixture.datasets:
                if part.data_files is None:
                    part.path, part.data_files = _split_file(part.path)
            splits: Any = get_dataset(mixture)
        else:
            path, file = _split_file(script.dataset_name)
            name = script.dataset_config if file is None else None
            splits = load_dataset(path, name, data_files=file, streaming=script.dataset_streaming)
    except (DatasetsError, OSError, ValueError, StopIteration) as cause:
        why = cause if str(cause) else "holds no rows"
        raise UsageError(f"{source}: {script.dataset_name or 'datasets'}: cannot be loaded: {why}") from cause
    wanted = {"dataset_train_split": script.dataset_train_split}
    if evaluate:
        wanted["dataset_test_split"] = script.dataset_test_split
    for key, split in wanted.items():
        if split not in splits:
            raise UsageError(
                f"{source}: {key} {split!r}: expected one of the splits of the data, found "
                f"{', '.join(map(str, splits))}; a folder with train.jsonl and test.jsonl has both, or give datasets "
                "and test_split_size"
            )
        if getattr(splits[split], "num_rows", 1) == 0:
            raise UsageError(f"{source}: {key} {split!r}: holds no rows")
    return splits[script.dataset_train_split], splits[script.dataset_test_split] if evaluate else None


def _split_file(name: str) -> tuple[str, str | None]:
    """A local file as ``datasets`` wants it, folder and name; a folder or a hub id as it is."""
    path = Path(name)
    return (str(path.resolve().parent), path.name) if path.is_file() else (name, None)
