"""What can go wrong with one request, sorted by what to do about it.

The object-store library's messages hold addresses with their signatures and whatever the server wrote, so none of their
text is passed on: they are recognised here and put in words of our own.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Literal

Kind = Literal["missing", "forbidden", "changed", "no ranges", "throttled", "broken", "refused", "closed"]
"""What went wrong: no such file; no right to read it; another state of it; ranges are not served; come later; the
connection or the server failed; the server will not do it, now or later; we closed the file ourselves."""

_OF_STATUS: dict[int, Kind] = {
    **dict.fromkeys((404, 410), "missing"),
    **dict.fromkeys((401, 403, 407), "forbidden"),
    **dict.fromkeys((412, 416), "changed"),
    **dict.fromkeys((429, 503), "throttled"),
    **dict.fromkeys((408, 425), "broken"),
}
_STATUS = re.compile(r"status code: (\d{3})")
_CAUSES: tuple[tuple[str, str, Kind], ...] = (
    ("certificate", "the server's certificate is not accepted", "refused"),
    (
        "BadScheme",
        "the endpoint is plain http; if that is meant, set AWS_ALLOW_HTTP=true (GOOGLE_...)",
        "refused",
    ),
    ("dns error", "the host's name is not found", "broken"),
    ("failed to lookup address", "the host's name is not found", "broken"),
    ("Connection refused", "the connection is refused", "broken"),
    ("UnexpectedRange", "the answer holds another range than was asked for", "broken"),
    ("content length", "the answer does not say how long it is", "refused"),
    ("Content-Length", "the answer does not say how long it is", "refused"),
    ("169.254.169.254", "no credentials were found", "forbidden"),
    ("metadata.google.internal", "no credentials were found", "forbidden"),
    ("TimedOut", "nothing came any more (stalled)", "broken"),
    ("kind: Timeout", "nothing came any more (stalled)", "broken"),
    ("kind: Interrupted", "the connection broke inside the answer", "broken"),
    ("IncompleteMessage", "the connection broke before the answer", "broken"),
    ("ConnectionReset", "the connection was reset", "broken"),
    ("error sending request", "the connection failed", "broken"),
)


class RemoteProblem(Exception):  # noqa: N818 (one attempt's problem, often overcome by the next)
    """One request failed.

    Attributes:
        kind: what went wrong.
        words: the same for people, without addresses or secrets.
    """

    def __init__(self, kind: Kind, words: str) -> None:
        super().__init__(words)
        self.kind: Kind = kind
        self.words = words


class RemoteReadError(OSError):
    """A range could not be read after all attempts; the message says which, how often and what to do."""


def problem_of_status(status: int) -> RemoteProblem:
    """Sort an HTTP status that is not a success.

    >>> problem_of_status(503).words, problem_of_status(503).kind
    ('503 Service Unavailable', 'throttled')
    """
    try:
        words = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        words = f"status {status}"
    kind = _OF_STATUS.get(status, "broken" if status >= 500 else "refused")
    return RemoteProblem(kind, words)


def problem_of(error: Exception) -> RemoteProblem:
    """Sort an error of the object-store library by its class, and by what its text says where the class does not."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return problem_of_status(404)
    if name == "PreconditionError":
        return problem_of_status(412)
    if name == "NotSupportedError":
        return RemoteProblem("no ranges", "the server ignored the byte range and sent the whole file")
    status = _STATUS.search(text)
    for token, words, kind in _CAUSES:
        if token in text and (status is None or kind == "forbidden"):
            return RemoteProblem(kind, words)
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return problem_of_status(int(status.group(1)) if status is not None else 403)
    if status is not None:
        return problem_of_status(int(status.group(1)))
    return RemoteProblem("broken", f"the request failed ({name})")
