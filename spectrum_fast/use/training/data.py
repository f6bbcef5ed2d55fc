"""The data of a run: a local file or folder, a hub id, or a mixture of them, as TRL's configuration has it."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import UsageError

if TYPE_CHECKING:
    from spectrum_fast.use.training.config import TrainConfig

_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".txt": "text",
    ".text": "text",
    ".arrow": "arrow",
}
_COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})


def load_data(config: TrainConfig, *, evaluate: bool) -> tuple[Any, Any]:
    """Training and evaluation data; the second is None unless ``evaluate``.

    Raises:
        UsageError: nothing is found, a split is missing, or there is no row to train on.
    """
    script = config.script_arguments()
    splits = _load_mixture(config) if config.mixture.get("datasets") else _load_named(config, script)
    train = _split(splits, script.dataset_train_split, "dataset_train_split", config.source)
    if getattr(train, "num_rows", 1) == 0:
        raise UsageError(f"{config.source}: the training data holds no rows")
    if not evaluate:
        return train, None
    return train, _split(splits, script.dataset_test_split, "dataset_test_split", config.source)


def _load_named(config: TrainConfig, script: Any) -> Any:
    return _load(
        config,
        script.dataset_name,
        {"name": script.dataset_config, "streaming": script.dataset_streaming},
    )


def _load_mixture(config: TrainConfig) -> Any:
    """TRL's own mixture; the path of a local file becomes the loader for its kind."""
    from trl import get_dataset

    mixture = config.dataset_mixture()
    for dataset in mixture.datasets:
        builder = local_builder(dataset.path)
        if builder is not None and dataset.data_files is None:
            dataset.data_files, dataset.path = dataset.path, builder
    try:
        return get_dataset(mixture)
    except _load_errors() as cause:
        raise UsageError(f"{config.source}: datasets: cannot be loaded: {cause}") from cause


def _load(config: TrainConfig, path: str, options: dict[str, Any]) -> Any:
    from datasets import load_dataset

    builder = local_builder(path)
    try:
        if builder is not None:
            return load_dataset(builder, data_files=path, **options)
        return load_dataset(path, **options)
    except _load_errors() as cause:
        raise UsageError(f"{config.source}: dataset_name {path}: cannot be loaded: {cause}") from cause


def local_builder(path: str) -> str | None:
    """The loader of ``datasets`` for a local file, by its ending; None for a folder or a hub id.

    Raises:
        UsageError: it looks like a file, but there is none, or its ending is not known.
    """
    suffixes = [suffix for suffix in Path(path).suffixes if suffix.lower() not in _COMPRESSIONS]
    suffix = suffixes[-1].lower() if suffixes else ""
    if Path(path).is_file():
        if suffix not in _BUILDERS:
            raise UsageError(f"{path}: expected data as one of {', '.join(_BUILDERS)}, found the ending {suffix!r}")
        return _BUILDERS[suffix]
    if suffix in _BUILDERS and not Path(path).is_dir():
        raise UsageError(f"{path}: expected a data file, found none")
    return None


def _load_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return (DatasetsError, OSError, ValueError, ConnectionError)


def _split(splits: Any, name: str, key: str, source: str) -> Any:
    if name not in splits:
        raise UsageError(
            f"{source}: {key} {name!r}: expected one of the splits of the data, found {', '.join(map(str, splits))}; "
            "a folder with train.jsonl and test.jsonl has both, or give datasets and test_split_size"
        )
    return splits[name]
