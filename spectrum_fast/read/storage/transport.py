"""One remote file as a source of byte ranges, through the obstore library, which is imported here and only when needed.

obstore's own retries are switched off: they do not honour ``Retry-After``, cannot continue a broken answer of a server
that gives no entity tag, and cannot be told to stop. :mod:`spectrum_fast.read.storage.ranges` retries instead.
"""

from __future__ import annotations

import base64
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.hub_files import resolve_hub_file
from spectrum_fast.read.storage.network import Stop, wait_for
from spectrum_fast.read.storage.problems import RemoteProblem
from spectrum_fast.read.storage.settings import RemoteSettings
from spectrum_fast.read.storage.stored_file import RemoteStamp, Target

_STREAM_BYTES = 1 << 20
_PROBE_SECONDS = 10.0


class Transport:
    """Requests for ranges of one file.

    Raises:
        BackendUnavailableError: obstore is not installed.
        CheckpointError: a file of the hub cannot be found there.
    """

    def __init__(self, address: RemoteFile, settings: RemoteSettings) -> None:
        self.address = address
        self._settings = settings
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._connect()

    def get(self, begin: int, end: int, etag: str, stop: Stop) -> tuple[RemoteStamp, Iterator[bytes]]:
        """Ask for the bytes from ``begin`` to ``end``, which may lie past the end of the file, under its entity tag.

        Returns:
            State of the file according to the answer, and the bytes, in pieces.

        Raises:
            RemoteProblem: there was no good answer, or the request was broken off; taking the pieces raises it too.
        """
        options: dict[str, Any] = {"range": (begin, end)}
        known = self._target.stamp
        if etag and not etag.startswith("W/") and known is None:
            options["if_match"] = etag
        result = wait_for(lambda: self._store.get_async(self._path, options=options), stop)
        meta = result.meta
        stamp = known or RemoteStamp(meta["size"], meta["e_tag"] or "", _date(meta), meta["version"] or "")
        if stamp.size_bytes != meta["size"]:
            raise RemoteProblem("changed", f"expected {stamp.size_bytes} bytes, found {meta['size']}")
        return stamp, _pieces(result, stop)

    def get_whole(self, limit_bytes: int, stop: Stop) -> bytes | None:
        """All of a small file with one plain request, for servers do not always cut small files; None if it is large.

        Raises:
            RemoteProblem: there was no good answer.
        """
        result = wait_for(lambda: self._store.get_async(self._path), stop)
        if result.meta["size"] > limit_bytes:
            return None
        data = b"".join(_pieces(result, stop))
        return data if len(data) <= limit_bytes else None

    def renew(self) -> bool:
        """Ask for a new signed address where there is one to ask for; says whether there was."""
        if self.address.scheme != "hf":
            return False
        with self._lock:
            self._connect()
        return True

    def pause(self, throttled: bool) -> float:
        """Seconds that the server wants us to wait, as far as it has told; one that turned us away is asked for them.

        obstore keeps an answer's headers to itself, so one more request, for one byte, is made here for
        ``Retry-After``, at most one at a time. s3 and gs do not send the header, and are not asked.
        """
        if throttled and self.address.scheme not in ("s3", "gs") and self._lock.acquire(blocking=False):
            try:
                if self._resume_at <= time.monotonic():
                    timeout = min(self._settings.stall_seconds, _PROBE_SECONDS)
                    self._resume_at = time.monotonic() + _ask_pause(self._target, timeout)
            finally:
                self._lock.release()
        return max(0.0, self._resume_at - time.monotonic())

    def _connect(self) -> None:
        self._target = target_of(self.address)
        self._store, self._path = open_store(self._target, self._settings)


def _pieces(result: Any, stop: Stop) -> Iterator[bytes]:
    """The body of an answer, piece by piece."""
    stream = result.stream(min_chunk_size=_STREAM_BYTES)
    while True:
        try:
            piece = wait_for(lambda: stream.__anext__(), stop)
        except StopAsyncIteration:
            return
        yield bytes(piece)


def target_of(address: RemoteFile) -> Target:
    """Find out where requests for a file go, and with which headers."""
    if address.scheme == "hf":
        return resolve_hub_file(address)
    if address.scheme in ("s3", "gs"):
        return Target(address.url, {})
    parts = urlsplit(address.url)
    user, at, host = parts.netloc.rpartition("@")
    headers = {}
    if at:
        headers["authorization"] = "Basic " + base64.b64encode(unquote(user).encode()).decode("ascii")
    return Target(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), headers)


def open_store(target: Target, settings: RemoteSettings, retries: int = 0) -> tuple[Any, str]:
    """Make obstore's store for a target, and the path in it; ``retries`` are those of obstore itself.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        import obstore.store
    except ImportError as error:
        raise BackendUnavailableError(
            "reading remote files: expected the package obstore, found none; run pip install 'spectrum-fast[remote]'"
        ) from error
    store: Any = obstore.store
    stall, whole = f"{settings.stall_seconds * 1000:.0f}ms", f"{max(600.0, settings.patience_seconds):.0f}s"
    client: dict[str, Any] = {"connect_timeout": stall, "read_timeout": stall, "timeout": whole}
    retry = {"max_retries": retries, "retry_timeout": timedelta(seconds=settings.patience_seconds)}
    scheme, _, rest = target.url.partition("://")
    if scheme in ("s3", "gs"):
        bucket, _, key = rest.partition("/")
        make = store.S3Store if scheme == "s3" else store.GCSStore
        # Not as client_options: those would displace what the environment says, AWS_ALLOW_HTTP among it.
        return make(bucket, config=client, retry_config=retry), key
    client |= {"allow_http": scheme == "http", "default_headers": target.headers}
    return store.HTTPStore(target.url, client_options=client, retry_config=retry), ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow nothing: a server that redirects is not turning us away, and our headers are for it alone."""


def _ask_pause(target: Target, timeout_seconds: float) -> float:
    request = urllib.request.Request(target.url, headers={**target.headers, "Range": "bytes=0-0"})  # noqa: S310 (http or https: checked when the address was taken)
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_seconds):
            return 0.0
    except urllib.error.HTTPError as error:
        with error:
            return _seconds(error.headers.get("Retry-After", "")) if error.code in (429, 503) else 0.0
    except (OSError, ValueError):
        return 0.0


def _seconds(text: str) -> float:
    """Read a ``Retry-After``: seconds, or a date."""
    if text.strip().isdigit() and len(text) < 12:
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _date(meta: Any) -> str:
    date = meta["last_modified"]
    return date.isoformat() if date is not None and date.timestamp() > 0 else ""
