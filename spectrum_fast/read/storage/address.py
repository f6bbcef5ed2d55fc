"""What names one file of a checkpoint: a path on this machine, or an address behind a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit, urlunsplit


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
    def scheme(self) -> str:
        """``http``, ``https``, ``s3``, ``gs``, or ``hf`` for ``hf://org/name@commit/file``."""
        return self.url.partition("://")[0]

    @property
    def shown(self) -> str:
        """The address for people.

        >>> RemoteFile("https://me:secret@host:8443/dir/m.safetensors?sig=abc").shown
        'https://host:8443/dir/m.safetensors'
        """
        if not self.scheme.startswith("http"):
            return self.url
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        """Name of the file without its folder.

        >>> RemoteFile("s3://bucket/some/model-00001-of-00002.safetensors").name
        'model-00001-of-00002.safetensors'
        """
        last = self.shown.rpartition("/")[2]
        return unquote(last) if self.scheme.startswith("http") else last

    @property
    def parent(self) -> str:
        """The folder, for people.

        >>> RemoteFile("https://host/dir/m.safetensors?sig=abc").parent
        'https://host/dir'
        """
        return self.shown.rpartition("/")[0]

    def sibling(self, name: str) -> RemoteFile:
        """Address of another file in the same folder; the query, which may be a signature of the folder, is kept.

        >>> RemoteFile("https://host/dir/?sig=abc").sibling("a b%.safetensors").url
        'https://host/dir/a%20b%25.safetensors?sig=abc'
        """
        if not self.scheme.startswith("http"):
            return RemoteFile(f"{self.url.rpartition('/')[0]}/{name}")
        parts = urlsplit(self.url)
        path = f"{parts.path.rpartition('/')[0]}/{quote(name, safe='')}"
        return RemoteFile(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))

    def as_folder(self) -> RemoteFile:
        """The same address with a slash at the end of its path, so that its siblings are the files in it.

        >>> RemoteFile("https://host/dir?sig=abc").as_folder().url, RemoteFile("s3://bucket").as_folder().url
        ('https://host/dir/?sig=abc', 's3://bucket/')
        """
        if not self.scheme.startswith("http"):
            return RemoteFile(self.url.rstrip("/") + "/")
        parts = urlsplit(self.url)
        return RemoteFile(urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", parts.query, "")))

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"RemoteFile({self.shown!r})"


Address: TypeAlias = Path | RemoteFile
"""What names one file of a checkpoint."""
