"""Where a library's files lie: a folder, or a dataset repository on the hub. A store lists, reads and writes texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrum_fast.errors import ScanFileError
from spectrum_fast.files import read_text, write_text_atomic

HUB_PREFIX = "hf://datasets/"
_FOLDERS = ("", "model_snr_results")
"""Where files are looked for: the place itself, and the folder that the reference and axolotl use."""


@dataclass(frozen=True)
class FolderStore:
    """A folder; also its subfolder ``model_snr_results``."""

    path: Path

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.path)

    def names(self) -> list[str]:
        """Names of the regular files."""
        found = []
        for folder in _FOLDERS:
            home = self.path / folder
            if not home.is_dir():
                continue
            try:
                entries = [entry.name for entry in os.scandir(home) if entry.is_file()]
            except OSError as error:
                raise ScanFileError(f"{home}: cannot be listed: {error.strerror or error}") from error
            found += [f"{folder}/{name}" if folder else name for name in entries]
        return sorted(found)

    def read(self, name: str) -> str:
        """Content of a file."""
        return read_text(self.path / name, error=ScanFileError)

    def write(self, texts: Mapping[str, str], message: str) -> None:  # noqa: ARG002
        """Write each file whole or not at all."""
        for name, text in texts.items():
            write_text_atomic(self.path / name, text, error=ScanFileError)


@dataclass(frozen=True)
class HubStore:
    """A dataset repository, through huggingface_hub and its cache; ``HF_ENDPOINT`` and ``HF_TOKEN`` are honoured."""

    repository: str
    revision: str

    @property
    def where(self) -> str:
        """The repository as a user writes it."""
        return f"{HUB_PREFIX}{self.repository}@{self.revision}"

    def names(self) -> list[str]:
        """Names of the files in the folders that are looked at."""
        listed = self._call("list", "list_repo_files")
        return sorted(name for name in listed if name.rpartition("/")[0] in _FOLDERS)

    def read(self, name: str) -> str:
        """Content of a file, downloaded once."""
        return read_text(self._call(f"read {name} of", "hf_hub_download", name), error=ScanFileError)

    def write(self, texts: Mapping[str, str], message: str) -> None:
        """One commit with all files."""
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(name, text.encode("utf-8")) for name, text in texts.items()]
        self._call("write to", "create_commit", operations, commit_message=message)

    def _call(self, deed: str, method: str, *arguments: Any, **named: Any) -> Any:
        """What a method of ``HfApi`` gives for the repository; ``deed`` says in messages what it is for."""
        from huggingface_hub import HfApi

        place = {"repo_type": "dataset", "revision": self.revision}
        try:
            return getattr(HfApi(), method)(self.repository, *arguments, **place, **named)
        # The HTTP library's errors have no base in common with the hub's; each is told with its first line.
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            raise ScanFileError(
                f"{self.where}: cannot {deed} it: {reason}; check the name, the connection and `hf auth login`, or use "
                "a folder"
            ) from error
