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
from spectrum_fast.scanning.kept import ScanChoice
from spectrum_fast.words import near_names_text

if TYPE_CHECKING:
    from trl import TrlParser

_DECIDED = {"order", "fused"}
"""Options of a selection that are no keys of the section: ``method`` and ``partial`` decide them."""


@dataclass(frozen=True, kw_only=True)
class SpectrumArguments(ScanChoice):
    """The section ``spectrum:``: how to choose, and what to do with the choice; docs/training.md describes every key.

    Raises:
        UsageError: a value is not what it should be, or two contradict each other.
    """

    method: Annotated[str, Option("What is trained.", choices=tuple(METHODS))]
    trainer: Annotated[str, Option("TRL's trainer.", choices=("sft", "dpo"))] = "sft"
    selection: Annotated[str | None, Option("A selection file.")] = None
    partial: Annotated[
        str, Option("Fused experts that are selected in part.", choices=("aggregate", "whole", "mask"))
    ] = "aggregate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection is None:
            return
        default = {field.name: field.default for field in fields(self)}
        about = ["scan", *(field.name for field in fields(SelectOptions))]
        if clash := [key for key in about if getattr(self, key) != default[key]]:
            raise UsageError(f"selection: it is finished, so {clash[0]} has no effect; give one or the other")
        if self.chosen.order in ("bottom", "random"):
            raise UsageError(
                f"method {self.method}: needs to know all modules of each group, which a selection does not hold; "
                "give the scan and top_percent instead"
            )

    @property
    def chosen(self) -> Method:
        """The method."""
        return METHODS[self.method]


@dataclass(frozen=True)
class RunArguments:
    """A run as it was asked for.

    The file is known for messages; ``given`` are TRL's keys, of which its parser makes its objects.
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

    def make(self) -> tuple[Any, Any, Any, Any]:
        """TRL's objects: script, trainer, model and mixture.

        Raises:
            UsageError: one of TRL's classes refuses a value.
        """
        try:
            return self.parser.parse_args_into_dataclasses(args=[], look_for_args_file=False)  # pyright: ignore[reportReturnType]
        except (ValueError, TypeError, ImportError, UsageError) as cause:
            raise UsageError(f"{self.source}: {cause}") from cause


def read_run(path: str | Path, overrides: Sequence[str] = ()) -> RunArguments:
    """Read the configuration of a run.

    An override is ``key=value`` or ``section.key=value``; the value is YAML (``3``, ``[a, b]``, ``null``).

    Raises:
        UsageError: it cannot be read, a key is unknown or does not fit, or two contradict each other.
    """
    document = _mapping_of(_parse_yaml(read_text(path, error=UsageError), str(path)), str(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        *sections, last = key.strip().split(".")
        if not equals or not all((*sections, last)):
            raise UsageError(f"--set {override}: expected key=value or section.key=value")
        place = document
        for section in sections:
            place = _mapping_of(place.setdefault(section, {}), f"--set {override}: {section}")
        place[last] = _parse_yaml(text, f"--set {override}")
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
        if "method" not in values:
            raise UsageError("method: expected what to train, found nothing; for example: spectrum")
        lists = {key: [values[key]] for key in ("include", "exclude") if isinstance(values.get(key), str)}
        return SpectrumArguments(**{**values, **lists})
    except UsageError as error:
        raise UsageError(f"spectrum: {error}") from error


def _parser(trainer: str, values: Mapping[str, Any]) -> TrlParser:
    """TRL's parser, with the values as defaults and one line for what it does not take."""
    try:
        import torch
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
    parser.set_defaults_with_config(**{"use_cpu": not torch.cuda.is_available(), **values, **texts})
    return parser


def _check(run: RunArguments) -> None:
    """What TRL does not know: which of its fields the method decides, and what is never done."""
    method, values = run.spectrum.chosen, run.values
    if values["trust_remote_code"]:
        raise UsageError(
            "trust_remote_code: code that comes with a checkpoint is never run; use a model that transformers knows"
        )
    for key, what in (("model_name_or_path", "a folder or hub id"), ("output_dir", "a folder for the trained model")):
        if not values[key]:
            raise UsageError(f"{key}: expected {what}, found nothing")
    if bool(values["dataset_name"]) is bool(values["datasets"]):
        found = "both" if values["datasets"] else "neither"
        raise UsageError(
            "expected one of dataset_name (a file, folder or hub id) and datasets (a list of them), found " + found
        )
    selects_adapters = method.order is not None and method.adapters
    decided = {
        "use_peft": not method.adapters,
        "load_in_4bit": not method.quantised,
        "load_in_8bit": True,
        "lora_target_modules": selects_adapters,
        "lora_target_parameters": selects_adapters,
    }
    if clash := next((key for key, by_method in decided.items() if by_method and values[key]), None):
        raise UsageError(f"{clash}: spectrum.method decides it, which is {run.spectrum.method}; drop the key")


def _require_known(keys: Iterable[str], known: Sequence[str]) -> None:
    """Refuse the first key that is not known, with the nearest that are."""
    if unknown := next((key for key in keys if key not in known), None):
        raise UsageError(f"{unknown}: no such key{near_names_text(str(unknown), known)}")


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as cause:
        raise UsageError(f"{source}: expected YAML of plain data: {' '.join(str(cause).split())}") from cause


def _mapping_of(value: Any, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise UsageError(f"{source}: expected keys and values, found {found}")
    return value
