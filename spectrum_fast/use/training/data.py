"""The data of a run: a local file or folder, a hub id, or TRL's mixture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectrum_fast.errors import UsageError

_BUILDERS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".csv": "csv"} | {
    ".txt": "text",
    ".text": "text",
    ".arrow": "arrow",
}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


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
                if part.data_files is None and (builder := local_builder(part.path)):
                    part.data_files, part.path = part.path, builder
            splits: Any = get_dataset(mixture)
        else:
            name, builder = script.dataset_name, local_builder(script.dataset_name)
            files: dict[str, Any] = {"data_files": name} if builder else {"name": script.dataset_config}
            splits = load_dataset(builder or name, streaming=script.dataset_streaming, **files)
    except (DatasetsError, OSError, ValueError) as cause:
        raise UsageError(f"{source}: {script.dataset_name or 'datasets'}: cannot be loaded: {cause}") from cause
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


def local_builder(path: str) -> str | None:
    """The loader of ``datasets`` for a local file, by its ending; None for a folder or a hub id.

    Raises:
        UsageError: it looks like a file, but there is none, or its ending is not known.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() not in _COMPRESSIONS]
    builder = _BUILDERS.get(suffixes[-1]) if suffixes else None
    if Path(path).is_file():
        if builder is None:
            raise UsageError(f"{path}: expected data as one of {', '.join(_BUILDERS)}, found another ending")
        return builder
    if builder is not None and not Path(path).is_dir():
        raise UsageError(f"{path}: expected a data file, found none")
    return None
