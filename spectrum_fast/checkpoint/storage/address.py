"""What names one file of a checkpoint: a path on this machine, or an address behind a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """The address of one remote file.

    What is shown of it (``str``, ``repr``, :attr:`name`, :attr:`parent`) holds no user name, no password and no query,
    for a query may be a signature.

    Attributes:
        url: full address with whatever it takes to open it; not to be shown.
    """

    url: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The address for people.

        >>> RemoteFile("https://me:secret@host:8443/dir/m.safetensors?sig=abc").shown
        'https://host:8443/dir/m.safetensors'
        """
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        """Name of the file without its folder.

        >>> RemoteFile("s3://bucket/some/model-00001-of-00002.safetensors").name
        'model-00001-of-00002.safetensors'
        """
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def parent(self) -> str:
        """The folder, for people.

        >>> RemoteFile("https://host/dir/m.safetensors?sig=abc").parent
        'https://host/dir'
        """
        return self.shown.rpartition("/")[0]

    def __str__(self) -> str:
        return self.shown


Address: TypeAlias = Path | RemoteFile
"""What names one file of a checkpoint."""
