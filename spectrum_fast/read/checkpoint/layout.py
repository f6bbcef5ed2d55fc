"""Which files of a folder make up the model, decided from their names alone.

The same rule serves a local folder and a repository's listing, so nothing is downloaded that would not be read.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.naming import natural_key
from spectrum_fast.words import list_some

STANDARD_FILE = "model.safetensors"
"""Name of a model in one file."""

STANDARD_INDEX = "model.safetensors.index.json"
"""Name of the index of a model in several files."""

ADAPTER_CONFIG = "adapter_config.json"
"""Says what the matrices of a PEFT adapter change, which lie beside it."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."
"""Before every name that PEFT saves."""

_CONVERSION = (
    "python -c 'import torch, safetensors.torch as st; "
    'st.save_file({k: v.clone() for k, v in torch.load("FILE.bin", weights_only=True).items()}, '
    '"FILE.safetensors")\''
)
"""Writes every tensor under its own name; copies, because one file must not hold a tensor under two names."""

_INDEX_SUFFIX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_NUMBERED = re.compile(r"(.+)-([0-9]{1,6})-of-([0-9]{1,6})(\.safetensors|\.gguf)")


@dataclass(frozen=True)
class Layout:
    """The files to read.

    Attributes:
        index: name of the index file to follow, or None.
        files: names of the safetensors or GGUF files where there is no index; empty where the index names them.
        notes: what was passed over and why.
    """

    index: str | None
    files: tuple[str, ...]
    notes: tuple[str, ...]


def is_adapter(names: Collection[str]) -> bool:
    """Whether a folder of these files holds an adapter and no model."""
    is_model = any(name.startswith("model") and name.endswith(".safetensors") for name in names)
    return ADAPTER_CONFIG in names and not is_model


def choose_layout(where: str, names: Collection[str]) -> Layout:
    """Choose the files of a model: ``model.safetensors``, else an index, else all safetensors files, else GGUF files.

    ``model.safetensors`` goes before an index, as in transformers; what is passed over is noted.

    Args:
        where: the folder or hub id, for messages.
        names: plain names of the files in it (not of files in folders below).

    Returns:
        The files to read.

    Raises:
        CheckpointError: no such file, only pickles, several indexes and none standard, several GGUF models, or gaps in
            a numbered set.
    """
    files = sorted((name for name in names if name.endswith(".safetensors")), key=natural_key)
    if is_adapter(names):
        raise CheckpointError(
            f"{where}: expected a model, found an adapter (LoRA or the like: {ADAPTER_CONFIG}), whose matrices are "
            "only what it adds to a model (`spectrum-fast scan` takes a folder of one, with --plus BASE as a model); "
            "merge the two: "
            "peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)"
        )
    indexes = sorted((name for name in names if name.endswith(_INDEX_SUFFIX)), key=natural_key)
    if STANDARD_FILE in files:
        passed = [name for name in files + indexes if name != STANDARD_FILE]
        return Layout(None, (STANDARD_FILE,), _note_passed(STANDARD_FILE, passed))
    if indexes:
        if STANDARD_INDEX not in indexes and len(indexes) > 1:
            raise CheckpointError(
                f"{where}: several index files and none named {STANDARD_INDEX}: {list_some(indexes)}; "
                "move the variant to be read into a folder of its own"
            )
        index = STANDARD_INDEX if STANDARD_INDEX in indexes else indexes[0]
        return Layout(index, (), _note_passed(index, [name for name in indexes if name != index]))
    if not files:
        files = _gguf_files(where, names)
    if not files:
        raise _nothing_to_read(where, names)
    _check_numbers(where, files)
    return Layout(None, tuple(files), ())


def _note_passed(taken: str, passed: list[str]) -> tuple[str, ...]:
    return (f"{taken} was read; not read: {list_some(passed)}",) if passed else ()


def _gguf_files(where: str, names: Collection[str]) -> list[str]:
    """The GGUF files of the one model that there is: its quantisations lie side by side, each a model of its own."""
    files = sorted((name for name in names if name.endswith(".gguf")), key=natural_key)
    models = {match[1] if (match := _NUMBERED.fullmatch(name)) else name for name in files}
    if len(models) > 1:
        raise CheckpointError(
            f"{where}: expected one model, found {len(models)} GGUF models: {list_some(files)}; pass one of these files"
        )
    return files


def _check_numbers(where: str, files: list[str]) -> None:
    """Refuse ``name-00001-of-00003`` without its sisters: the sets are small, gaps are broken downloads."""
    numbers: dict[tuple[str, int, str], set[int]] = {}
    for name in files:
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            numbers.setdefault((match[1], int(match[3]), match[4]), set()).add(int(match[2]))
    for (stem, total, ending), present in numbers.items():
        first = 0 if 0 in present else 1
        missing = total - len(present & set(range(first, first + total)))
        if missing:
            raise CheckpointError(
                f"{where}: {missing} of {total} files {stem}-*-of-{total}{ending} are missing (no index names "
                "them); download the checkpoint again"
            )


def _nothing_to_read(where: str, names: Collection[str]) -> CheckpointError:
    pickles = sorted((name for name in names if name.endswith(PICKLES)), key=natural_key)
    if pickles:
        return CheckpointError(
            f"{where}: expected *.safetensors, found only pickles ({list_some(pickles)}), which run code when they "
            "are loaded and are never opened here; convert them in a sandbox you trust, with all names kept: "
            "transformers.AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), or, whatever model "
            f"it is, file by file: {_CONVERSION}"
        )
    return CheckpointError(
        f"{where}: no *.safetensors or *.gguf file in this folder; pass the folder that holds them (folders below are "
        "not searched)"
    )
