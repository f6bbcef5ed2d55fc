"""The arguments of a run: TRL's own classes, filled by TRL's own parser, and one section ``spectrum:`` of ours.

Without that section the file is one that ``trl sft --config`` reads. Every key must be known and fit its field.
"""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import yaml

from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.errors import UsageError
from spectrum_fast.files import read_text
from spectrum_fast.options import Option
from spectrum_fast.words import near_names_text

if TYPE_CHECKING:
    from trl import TrlParser


class Method(NamedTuple):
    """What a method trains: which modules of a scan (None: all), adapters on them, a 4-bit base, or nothing (laser)."""

    order: str | None
    adapters: bool = False
    quantised: bool = False
    low_rank: bool = False


METHODS = {
    "full": Method(None),
    "lora": Method(None, adapters=True),
    "qlora": Method(None, adapters=True, quantised=True),
    "spectrum": Method("top"),
    "spectrum-lora": Method("top", adapters=True),
    "spectrum-qlora": Method("top", adapters=True, quantised=True),
    "random": Method("random"),
    "bottom": Method("bottom"),
    "laser": Method("top", low_rank=True),
}
_DECIDED = {"order": "spectrum.method", "fused": "spectrum.partial"}
"""Options of a selection that are no keys of the section, and the key that decides them."""


@dataclass(frozen=True, kw_only=True)
class SpectrumArguments(SelectOptions):
    """The section ``spectrum:``: how to choose, what to do with the choice, and how to divide the model.

    docs/training.md describes every key.

    Raises:
        UsageError: a value is not what it should be, or two contradict each other.
    """

    method: Annotated[str, Option("What is trained.", choices=tuple(METHODS))]
    trainer: Annotated[str, Option("TRL's trainer.", choices=("sft", "dpo"))] = "sft"
    selection: Annotated[str | None, Option("A selection file.")] = None
    scan: Annotated[str | None, Option("A scan file; without it the model is scanned.")] = None
    partial: Annotated[
        str, Option("Fused experts that are selected in part.", choices=("aggregate", "whole", "mask"))
    ] = "aggregate"
    shard: Annotated[str, Option("How the model is divided.", choices=("none", "zero2", "zero3", "fsdp2"))] = "none"
    offload: Annotated[str, Option("What lies in the host's memory.", choices=("none", "optimizer", "all"))] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection is not None:
            about = ["scan", *(field.name for field in fields(SelectOptions))]
            default = {field.name: field.default for field in fields(self)}
            if clash := [key for key in about if getattr(self, key) != default[key]]:
                raise UsageError(f"selection: it is finished, so {clash[0]} has no effect; give one or the other")
            if self.chosen.order in ("bottom", "random"):
                raise UsageError(
                    f"method {self.method}: needs to know all modules of each group, which a selection does not hold; "
                    "give the scan and top_percent instead"
                )
        if self.chosen.low_rank and self.criterion not in (None, "mp"):
            raise UsageError(f"criterion {self.criterion}: method laser takes ranks from criterion mp; drop the key")
        if self.offload != "none" and self.shard == "none":
            raise UsageError("offload: needs spectrum.shard zero2, zero3 or fsdp2")
        if self.offload == "all" and self.shard == "zero2":
            raise UsageError("offload all: ZeRO-2 keeps every parameter on the device; use shard zero3")

    @property
    def chosen(self) -> Method:
        """The method."""
        return METHODS[self.method]


@dataclass(frozen=True)
class RunArguments:
    """A run as it was asked for.

    Attributes:
        source: the file, for messages.
        spectrum: our section.
        given: TRL's keys and values.
        parser: TRL's parser with the file's values; it makes TRL's objects.
    """

    source: str
    spectrum: SpectrumArguments
    given: Mapping[str, Any]
    parser: TrlParser

    @property
    def model_name(self) -> str:
        """Folder or hub id of the model."""
        return self.given["model_name_or_path"]

    @property
    def output_folder(self) -> Path:
        """Where the run writes."""
        return Path(self.given["output_dir"])

    def make(self, **more: Any) -> tuple[Any, Any, Any, Any]:
        """TRL's objects: script, trainer, model and mixture.

        Args:
            more: values that the file does not hold.

        Raises:
            UsageError: one of TRL's classes refuses a value.
        """
        self.parser.set_defaults_with_config(**more)
        try:
            return self.parser.parse_args_into_dataclasses(args=[], look_for_args_file=False)  # pyright: ignore[reportReturnType]
        except (ValueError, TypeError, ImportError, UsageError) as cause:
            raise UsageError(f"{self.source}: {cause}") from cause


def read_run(path: str | Path, overrides: Sequence[str] = ()) -> RunArguments:
    """Read the configuration of a run.

    Args:
        path: a YAML file.
        overrides: ``key=value`` or ``section.key=value``; the value is YAML (``1e-5``, ``[a, b]``, ``null``).

    Raises:
        UsageError: it cannot be read, a key is unknown or does not fit, or two contradict each other.
    """
    document = _mapping_of(parse_yaml(read_text(path, error=UsageError), str(path)), str(path))
    for override in overrides:
        _set(document, override)
    return parse_run(document, str(path))


def parse_run(document: Mapping[str, Any], source: str) -> RunArguments:
    """The same from keys and values; see :func:`read_run`."""
    given = {key: value for key, value in document.items() if key != "spectrum"}
    try:
        spectrum = _section(_mapping_of(document.get("spectrum") or {}, "spectrum"))
        for key, value in _mapping_of(given.pop("env", {}), "env").items():
            os.environ[key] = str(value)
        parser = _parser(_library_classes(spectrum.trainer), given)
        _check(vars(parser.parse_known_args([])[0]), spectrum)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    return RunArguments(source, spectrum, given, parser)


def _section(values: dict[str, Any]) -> SpectrumArguments:
    try:
        require_known(values, [field.name for field in fields(SpectrumArguments) if field.name not in _DECIDED])
        if "method" not in values:
            raise UsageError("method: expected what to train, found nothing; for example: spectrum")
        lists = {
            key: [value] for key, value in values.items() if key in ("include", "exclude") and isinstance(value, str)
        }
        return SpectrumArguments(**{**values, **lists})
    except UsageError as error:
        raise UsageError(f"spectrum: {error}") from error


def require_known(keys: Iterable[str], known: Sequence[str]) -> None:
    """Refuse the first key that is not known, with the nearest that are.

    Raises:
        UsageError: there is one.
    """
    if unknown := next((key for key in keys if key not in known), None):
        raise UsageError(f"{unknown}: no such key{near_names_text(unknown, known)}")


def _library_classes(trainer: str) -> tuple[Any, ...]:
    try:
        import trl
    except ImportError as missing:
        raise UsageError(
            f"training needs packages that are not here ({missing}); install them: pip install 'spectrum-fast[train]'"
        ) from missing
    config = trl.DPOConfig if trainer == "dpo" else trl.SFTConfig
    return trl.ScriptArguments, config, trl.ModelConfig, trl.DatasetMixtureConfig


def _parser(classes: tuple[Any, ...], values: Mapping[str, Any]) -> TrlParser:
    """TRL's parser, with the values as defaults and one line for what it does not take."""
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> Any:
            raise UsageError(re.sub(r"^argument --(\w+)\S*: ", r"\1: ", message))

    require_known(values, [*(field.name for cls in classes for field in fields(cls) if field.init), "spectrum"])
    parser = Parser(classes)
    kinds = {action.dest: action.type for action in parser._actions}
    # A default that is a text goes through the field's own conversion, so that a wrong number is told at once.
    texts = {key: str(value) for key, value in values.items() if kinds[key] in (int, float) and value is not None}
    parser.set_defaults_with_config(**{**values, **texts})
    return parser


def _check(values: Mapping[str, Any], spectrum: SpectrumArguments) -> None:
    """What TRL does not know: which of its fields the method decides."""
    method = spectrum.chosen
    if values["trust_remote_code"]:
        raise UsageError(
            "trust_remote_code: code that comes with a checkpoint is never run; use a model that transformers knows"
        )
    for key, meaning in (
        ("model_name_or_path", "a folder or hub id"),
        ("output_dir", "a folder for the trained model"),
    ):
        if not values[key]:
            raise UsageError(f"{key}: expected {meaning}, found nothing")
    if not method.low_rank and bool(values["dataset_name"]) == bool(values["datasets"]):
        raise UsageError(
            "expected one of dataset_name (a file, folder or hub id) and datasets (a list of them), found "
            + ("both" if values["datasets"] else "neither")
        )
    for key, decided in (("use_peft", method.adapters), ("load_in_4bit", method.quantised), ("load_in_8bit", False)):
        if values[key] and not decided:
            raise UsageError(f"{key}: spectrum.method decides it, which is {spectrum.method}; drop the key")
    if method.order is not None and method.adapters:
        for key in ("lora_target_modules", "lora_target_parameters"):
            if values[key]:
                raise UsageError(f"{key}: set by the selection under method {spectrum.method}; drop the key")
    if spectrum.shard != "none" and (values["deepspeed"] or values["fsdp"]):
        raise UsageError("spectrum.shard makes the configuration of DeepSpeed or FSDP; drop the other one")


class _StrictLoader(yaml.SafeLoader):
    """Plain data; equal keys are an error (PyYAML keeps the last), ``1e-5`` is a number (YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportUnknownArgumentType]
        for place, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"expected a text as key, found {key!r}")
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice")
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document of plain data.

    Raises:
        UsageError: it is no YAML, holds something that is no plain data, or a key stands twice.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as cause:
        raise UsageError(f"{source}: expected YAML of plain data: {' '.join(str(cause).split())}") from cause


def _mapping_of(value: Any, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise UsageError(f"{source}: expected keys and values, found {found}")
    return value


def _set(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not all((*sections, last)):
        raise UsageError(f"--set {override}: expected key=value or section.key=value")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise UsageError(f"--set {override}: {section!r} holds a value, not keys")
    document[last] = parse_yaml(text, f"--set {override}")
