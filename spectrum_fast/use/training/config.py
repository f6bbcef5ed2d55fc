"""A training configuration: the fields of TRL and transformers, and one section ``spectrum:``.

The file that `trl sft --config` reads is read here as it is: fields of ``SFTConfig`` (and so of ``TrainingArguments``),
``ModelConfig``, ``ScriptArguments`` and ``DatasetMixtureConfig``. Every key must be known and fit its field.
"""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.patterns import near_names_text
from spectrum_fast.errors import UsageError
from spectrum_fast.use.training.field_types import check_types, field_types
from spectrum_fast.use.training.methods import Method
from spectrum_fast.use.training.section import SpectrumSection, read_section
from spectrum_fast.use.training.yaml_file import read_yaml, require_mapping

if TYPE_CHECKING:
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments

_REFUSED = {
    "trust_remote_code": "code that comes with a checkpoint is never run; use a model that transformers itself knows",
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run.

    Attributes:
        source: the file, for messages.
        spectrum: our section.
        model: fields of TRL's ``ModelConfig``.
        script: fields of TRL's ``ScriptArguments``.
        mixture: fields of TRL's ``DatasetMixtureConfig``.
        trainer: fields of TRL's ``SFTConfig``.
        document: the whole configuration as read, for the run's record.
    """

    source: str
    spectrum: SpectrumSection
    model: Mapping[str, Any]
    script: Mapping[str, Any]
    mixture: Mapping[str, Any]
    trainer: Mapping[str, Any]
    document: Mapping[str, Any]

    @property
    def method(self) -> Method:
        """What is trained."""
        return self.spectrum.chosen

    @property
    def model_name(self) -> str:
        """Folder or hub id of the model."""
        return self.model["model_name_or_path"]

    @property
    def output_folder(self) -> Path:
        """Where the run writes."""
        return Path(self.trainer["output_dir"])

    def model_config(self) -> ModelConfig:
        """TRL's object, with adapters and quantisation as the method has them."""
        from trl import ModelConfig

        chosen = {"use_peft": self.method.adapters, "load_in_4bit": self.method.quantised}
        return ModelConfig(**{**self.model, **chosen})

    def script_arguments(self) -> ScriptArguments:
        """TRL's object."""
        from trl import ScriptArguments

        return ScriptArguments(**self.script)

    def dataset_mixture(self) -> DatasetMixtureConfig:
        """TRL's object."""
        from trl import DatasetMixtureConfig

        try:
            return DatasetMixtureConfig(**self.mixture)
        except TypeError as cause:
            raise UsageError(f"{self.source}: datasets: {cause}") from cause


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration; see the module's docstring.

    Args:
        path: a YAML file.
        overrides: ``key=value``, see :func:`spectrum_fast.use.training.yaml_file.read_yaml`.

    Raises:
        UsageError: it cannot be read, a key is unknown or does not fit, or two contradict each other.
    """
    return parse_config(read_yaml(path, overrides), str(path))


def parse_config(document: Mapping[str, Any], source: str) -> TrainConfig:
    """The same from keys and values; see :func:`load_config`.

    Raises:
        UsageError: a key is unknown or does not fit, or two contradict each other.
    """
    hints = _library_fields()
    owner = {key: part for part, types in hints.items() for key in types}
    parts: dict[str, dict[str, Any]] = {part: {} for part in hints}
    for key, value in document.items():
        if key == "spectrum":
            continue
        if key in _REFUSED and value:
            raise UsageError(f"{source}: {key}: {_REFUSED[key]}")
        if key not in owner:
            raise UsageError(f"{source}: {key}: no such key{near_names_text(key, ['spectrum', *owner])}")
        parts[owner[key]][key] = value
    if isinstance(parts["trainer"].get("resume_from_checkpoint"), bool):  # their field is a text; true means the last
        hints["trainer"] |= {"resume_from_checkpoint": bool}
    for part, values in parts.items():
        check_types(values, hints[part], source)
    section = read_section(require_mapping(document.get("spectrum"), "spectrum", source), source)
    config = TrainConfig(source=source, spectrum=section, document=dict(document), **parts)
    _check(config)
    return config


def _library_fields() -> dict[str, dict[str, Any]]:
    """Part of the configuration -> its fields; of a name that two parts have, the first part's counts."""
    try:
        from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig
    except ImportError as missing:
        raise UsageError(
            f"training needs packages that are not here ({missing}); install them: pip install 'spectrum-fast[train]'"
        ) from missing
    classes = {"trainer": SFTConfig, "model": ModelConfig, "script": ScriptArguments, "mixture": DatasetMixtureConfig}
    seen: set[str] = set()
    result = {}
    for part, cls in classes.items():
        result[part] = {key: hint for key, hint in field_types(cls).items() if key not in seen}
        seen |= result[part].keys()
    return result


def _check(config: TrainConfig) -> None:
    source, method = config.source, config.method
    if not config.model.get("model_name_or_path"):
        raise UsageError(f"{source}: model_name_or_path: expected a folder or hub id, found nothing")
    if not config.trainer.get("output_dir"):
        raise UsageError(f"{source}: output_dir: expected a folder for the trained model, found nothing")
    if not method.low_rank and bool(config.script.get("dataset_name")) == bool(config.mixture.get("datasets")):
        raise UsageError(
            f"{source}: expected one of dataset_name (a file, folder or hub id) and datasets (a list of them), "
            f"found {'both' if config.script.get('dataset_name') else 'neither'}"
        )
    for key, decided in (("use_peft", method.adapters), ("load_in_4bit", method.quantised), ("load_in_8bit", False)):
        value = config.model.get(key)
        if value is not None and value != decided:
            raise UsageError(
                f"{source}: {key}: spectrum.method decides it, which is {method.name}, and {value} contradicts that; "
                "drop the key"
            )
    if method.order is not None and method.adapters:
        for key in ("lora_target_modules", "lora_target_parameters"):
            if config.model.get(key):
                raise UsageError(f"{source}: {key}: set by the selection under method {method.name}; drop the key")
    if config.spectrum.shard != "none" and (config.trainer.get("deepspeed") or config.trainer.get("fsdp")):
        raise UsageError(f"{source}: spectrum.shard makes the configuration of DeepSpeed or FSDP; drop the other one")
