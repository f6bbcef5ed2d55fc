"""Which checkpoints a fleet scans, and under which names their scans are filed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectrum_fast.choose.library.file_names import slug
from spectrum_fast.errors import CheckpointError, UsageError
from spectrum_fast.files import read_text
from spectrum_fast.read.checkpoint.hub import parse_hub_id

_ENDINGS = (".safetensors", ".gguf")
_ORGANISATION = re.compile(r"([A-Za-z0-9][\w.-]*)/\*", re.ASCII)


@dataclass(frozen=True)
class FleetModel:
    """One checkpoint.

    Attributes:
        source: as :func:`spectrum_fast.scan` takes it.
        name: under which its scan is filed.
    """

    source: str
    name: str


def list_models(text: str) -> list[FleetModel]:
    """The checkpoints that a user names.

    Args:
        text: a file with one checkpoint a line (``SOURCE`` or ``SOURCE NAME``; empty lines and those that begin with
            ``#`` are passed over), ``FOLDER/*`` for all checkpoints in a folder, or ``ORG/*`` for all models of an
            organisation on the hub that have safetensors files.

    Raises:
        UsageError: it is none of these, names nothing, or two checkpoints would be filed under one name.
        CheckpointError: the hub cannot be asked.
    """
    path = Path(text)
    if text.endswith("/*") and path.parent.is_dir():
        models = [FleetModel(str(entry), entry.name) for entry in sorted(path.parent.iterdir()) if _is_model(entry)]
    elif found := _ORGANISATION.fullmatch(text):
        models = [FleetModel(name, name) for name in _models_of(found[1])]
    elif path.is_file():
        models = list(_read_list(text))
    else:
        raise UsageError(
            f"{text}: expected a file with one checkpoint a line, FOLDER/* or ORG/* of the hub, found no such file or "
            "folder"
        )
    if not models:
        raise UsageError(f"{text}: expected checkpoints to scan, found none")
    filed: dict[str, str] = {}
    for model in models:
        key = slug(model.name).lower()
        if key in filed:
            raise UsageError(
                f"{text}: {filed[key]} and {model.source} would both be filed as {model.name}; give one of them "
                "another name, behind it on its line"
            )
        filed[key] = model.source
    return models


def _is_model(path: Path) -> bool:
    return path.suffix in _ENDINGS or (path.is_dir() and any(entry.suffix in _ENDINGS for entry in path.iterdir()))


def _read_list(text: str) -> Iterator[FleetModel]:
    for number, line in enumerate(read_text(text, error=UsageError).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise UsageError(f"{text}:{number}: expected SOURCE or SOURCE NAME, found {line.strip()!r}")
        source = words[0]
        own = source if parse_hub_id(source) and not Path(source).exists() else source.rstrip("/").rpartition("/")[2]
        bare = own.partition("@")[0].removesuffix(".safetensors").removesuffix(".gguf")
        yield FleetModel(source, words[-1] if len(words) == 2 else bare)


def _models_of(organisation: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        return sorted(model.id for model in HfApi().list_models(author=organisation, filter="safetensors"))
    # The HTTP library's errors have no base in common.
    except Exception as error:
        raise CheckpointError(
            f"{organisation}/*: the hub cannot be asked ({str(error).strip().partition(chr(10))[0][:200]}); check the "
            "name and the connection, or give a file with one checkpoint a line"
        ) from error
