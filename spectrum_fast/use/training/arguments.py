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
from typing import TYPE_CHECKING, Annotated, Any

import yaml

from spectrum_fast.choose.planner.setup import METHODS, Method
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.errors import UsageError
from spectrum_fast.files import read_text
from spectrum_fast.options import Option
from spectrum_fast.words import near_names_text

if TYPE_CHECKING:
    from trl import TrlParser

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
        default = {field.name: field.default for field in fields(self)}
        about = ["scan", *(field.name for field in fields(SelectOptions))]
        clash = [key for key in about if self.selection is not None and getattr(self, key) != default[key]]
        _refuse(
            (clash, f"selection: it is finished, so {''.join(clash[:1])} has no effect; give one or the other"),
            (
                self.selection is not None and (self.chosen.low_rank or self.chosen.order in ("bottom", "random")),
                f"method {self.method}: needs to know all modules of each group, which a selection does not hold; "
                "give the scan and top_percent instead",
            ),
            (
                self.chosen.low_rank and self.criterion not in (None, "mp"),
                f"criterion {self.criterion}: method laser takes ranks from criterion mp; drop the key",
            ),
            (self.offload != "none" and self.shard == "none", "offload: needs spectrum.shard zero2, zero3 or fsdp2"),
            (
                self.offload == "all" and self.shard == "zero2",
                "offload all: ZeRO-2 keeps every parameter on the device; use shard zero3",
            ),
        )

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

    @property
    def values(self) -> dict[str, Any]:
        """TRL's keys, each with the value that is given or its default; nothing is made of them yet."""
        return vars(self.parser.parse_known_args([])[0])

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
    document = _mapping_of(_parse_yaml(read_text(path, error=UsageError), str(path)), str(path))
    for override in overrides:
        _set(document, override)
    return parse_run(document, str(path))


def parse_run(document: Mapping[str, Any], source: str) -> RunArguments:
    """The same from keys and values; see :func:`read_run`."""
    given = dict(document)
    try:
        spectrum = _section(_mapping_of(given.pop("spectrum", None) or {}, "spectrum"))
        for key, value in _mapping_of(given.pop("env", {}), "env").items():
            os.environ[key] = str(value)
        run = RunArguments(source, spectrum, given, _parser(spectrum.trainer, given))
        _check(run)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    return run


def _section(values: dict[str, Any]) -> SpectrumArguments:
    try:
        _require_known(values, [field.name for field in fields(SpectrumArguments) if field.name not in _DECIDED])
        _refuse(("method" not in values, "method: expected what to train, found nothing; for example: spectrum"))
        lists = {key: [values[key]] for key in ("include", "exclude") if isinstance(values.get(key), str)}
        return SpectrumArguments(**{**values, **lists})
    except UsageError as error:
        raise UsageError(f"spectrum: {error}") from error


def _parser(trainer: str, values: Mapping[str, Any]) -> TrlParser:
    """TRL's parser, with the values as defaults and one line for what it does not take."""
    try:
        import trl
    except ImportError as missing:
        raise UsageError(
            f"training needs packages that are not here ({missing}); install them: pip install 'spectrum-fast[train]'"
        ) from missing

    class Parser(trl.TrlParser):
        def error(self, message: str) -> Any:
            raise UsageError(re.sub(r"^argument --(\w+)\S*: ", r"\1: ", message))

    config = trl.DPOConfig if trainer == "dpo" else trl.SFTConfig
    classes: Any = trl.ScriptArguments, config, trl.ModelConfig, trl.DatasetMixtureConfig
    parser = Parser(classes)
    kinds = {action.dest: action.type for action in parser._actions if action.dest != "help"}
    _require_known(values, [*kinds, "spectrum"])
    # A default that is a text goes through the field's own conversion, so that a wrong number is told at once.
    texts = {key: str(value) for key, value in values.items() if kinds[key] in (int, float) and value is not None}
    parser.set_defaults_with_config(**{**values, **texts})
    return parser


def _check(run: RunArguments) -> None:
    """What TRL does not know: which of its fields the method decides."""
    spectrum, values = run.spectrum, run.values
    method, word = spectrum.chosen, f"spectrum.method decides it, which is {spectrum.method}; drop the key"
    by_selection = f"set by the selection under method {spectrum.method}; drop the key"
    sources = bool(values["dataset_name"]) + bool(values["datasets"])
    _refuse(
        (
            values["trust_remote_code"],
            "trust_remote_code: code that comes with a checkpoint is never run; use a model that transformers knows",
        ),
        (not values["model_name_or_path"], "model_name_or_path: expected a folder or hub id, found nothing"),
        (not values["output_dir"], "output_dir: expected a folder for the trained model, found nothing"),
        (
            not method.low_rank and sources != 1,
            "expected one of dataset_name (a file, folder or hub id) and datasets (a list of them), found "
            + ("both" if sources else "neither"),
        ),
        (values["use_peft"] and not method.adapters, f"use_peft: {word}"),
        (values["load_in_4bit"] and not method.quantised, f"load_in_4bit: {word}"),
        (values["load_in_8bit"], f"load_in_8bit: {word}"),
        *(
            (method.order is not None and method.adapters and values[key], f"{key}: {by_selection}")
            for key in ("lora_target_modules", "lora_target_parameters")
        ),
        (
            spectrum.shard != "none" and (values["deepspeed"] or values["fsdp"]),
            "spectrum.shard makes the configuration of DeepSpeed or FSDP; drop the other one",
        ),
    )


def _require_known(keys: Iterable[str], known: Sequence[str]) -> None:
    """Refuse the first key that is not known, with the nearest that are."""
    if unknown := next((key for key in keys if key not in known), None):
        raise UsageError(f"{unknown}: no such key{near_names_text(unknown, known)}")


def _refuse(*faults: tuple[Any, str]) -> None:
    """Raise the words of the first fault that is there."""
    for fault, words in faults:
        if fault:
            raise UsageError(words)


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


def _parse_yaml(text: str, source: str) -> Any:
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
    _refuse((not equals or not all((*sections, last)), f"--set {override}: expected key=value or section.key=value"))
    for section in sections:
        document = document.setdefault(section, {})
        _refuse((not isinstance(document, dict), f"--set {override}: {section!r} holds a value, not keys"))
    document[last] = _parse_yaml(text, f"--set {override}")
