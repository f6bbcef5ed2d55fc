"""Checkpoints named by a hub id, through huggingface_hub's own cache.

Only safetensors (or GGUF) files, their index and config.json (an adapter's own) are asked for: no pickle, no code.
huggingface_hub is imported when a hub id is opened and not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.index import read_index
from spectrum_fast.read.checkpoint.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, choose_layout, is_adapter

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w.-]+(?:/[\w.-]+)*))?", re.ASCII)


def parse_hub_id(text: str) -> tuple[str, str] | None:
    """Split ``org/name[@revision]``; None if the text cannot be a hub id.

    >>> parse_hub_id("org/name@v1.0"), parse_hub_id("org/name")
    (('org/name', 'v1.0'), ('org/name', 'main'))
    >>> parse_hub_id("./folder"), parse_hub_id("a/b.safetensors")
    (None, None)
    """
    match = _HUB_ID.fullmatch(text)
    if match is None or ".." in text or text.endswith((".safetensors", ".gguf", ".json")):
        return None
    return match.group(1), match.group(2) or "main"


def is_cached(text: str) -> bool:
    """Say whether the text is a hub id of which the cache has something; nothing is asked for."""
    found = parse_hub_id(text)
    if found is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(found[0], "config.json", revision=found[1]), str)


def list_repository(repository: str, revision: str) -> tuple[str, tuple[str, ...]]:
    """Ask the hub for the commit behind a revision and the names of the files in it, those in folders left out.

    Raises:
        CheckpointError: not reachable, no such repository or revision, or no access.
    """
    try:
        with _asking(repository, revision):
            return _list(repository, revision)
    except _UnreachableError as error:
        raise CheckpointError(
            f"{_shown(repository, revision)}: {error}, and reading without storing needs a connection; make one, or "
            "leave out --no-store to read the cache"
        ) from error


def fetch_snapshot(repository: str, revision: str, *, adapters: bool = False) -> Path:
    """Give the local folder of a repository's snapshot, downloading what is missing where the hub can be reached.

    Args:
        repository: ``org/name``.
        revision: branch, tag or commit.
        adapters: an adapter's files are wanted, if there is no model.

    Returns:
        The snapshot's folder in the cache (``HF_HUB_CACHE``); without a connection it may lack files, which shows when
        it is opened.

    Raises:
        CheckpointError: not reachable and not cached, no such repository or revision, no access, or nothing to read in
            it.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        with _asking(repository, revision):
            return _download(repository, revision, adapters)
    except _UnreachableError as error:
        problem = str(error)
    try:
        # No pattern, no file asked for: only the folder is looked up.
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[], local_files_only=True))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{_shown(repository, revision)}: {problem} and it is not in the cache {constants.HF_HUB_CACHE}; run "
            f"`hf download {repository} --revision {revision} --include '*.safetensors' '*.safetensors.index.json' "
            "'*config.json'` where there is a connection, copy the cache here, or pass a local folder"
        ) from error


def _download(repository: str, revision: str, adapters: bool) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    _, names = _list(repository, revision)
    if adapters and is_adapter(names):
        wanted = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    else:
        layout = choose_layout(f"hub id {repository!r}", names)
        wanted = [*layout.files, "config.json"]
        if layout.index is not None:
            index = hf_hub_download(repository, layout.index, revision=revision)
            wanted += [layout.index, *sorted(set(read_index(Path(index)).values()))]
    patterns = [re.sub(r"([*?\[])", r"[\1]", name) for name in wanted]
    return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))


def _list(repository: str, revision: str) -> tuple[str, tuple[str, ...]]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, revision=revision)
    if info.sha is None:
        raise CheckpointError(f"{_shown(repository, revision)}: the hub names no commit; give one as org/name@commit")
    return info.sha, tuple(entry.rfilename for entry in info.siblings or [] if "/" not in entry.rfilename)


class _UnreachableError(Exception):
    """The hub cannot be asked; the text says why."""


@contextmanager
def _asking(repository: str, revision: str) -> Iterator[None]:
    """What goes wrong inside: the hub refuses, which is an error, or it cannot be asked."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise _UnreachableError("HF_HUB_OFFLINE is set")
    try:
        yield
    except CheckpointError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            f"{_shown(repository, revision)}: the hub does not know it or does not let you see it "
            f"({_first_line(error)}); check the spelling, accept the model's licence on its page, or log in with "
            "`hf auth login`"
        ) from error
    except Exception as error:  # the HTTP library's errors have no base in common
        raise _UnreachableError(f"the hub cannot be reached ({_first_line(error)})") from error


def _shown(repository: str, revision: str) -> str:
    return f"hub id {repository!r} (revision {revision!r})"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
