"""Where requests for one remote file go."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.stored_file import RemoteStamp


@dataclass(frozen=True)
class Target:
    """Where requests for a file go.

    Attributes:
        url: address, without user name and password.
        headers: sent with every request to that host; dropped when a redirect leads to another one.
        stamp: what is known about the file beforehand, or None. Its entity tag and version then stand for those of the
            answers.
    """

    url: str
    headers: dict[str, str]
    stamp: RemoteStamp | None = None

    def __repr__(self) -> str:
        return f"Target({RemoteFile(self.url)})"
