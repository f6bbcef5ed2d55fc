"""A real HTTP server on loopback that serves byte ranges, and breaks them in the ways that networks do.

Objects are byte strings by path. A :class:`Fault` in ``faults`` spoils one answer and is then spent; ``choose`` may
pick faults by request instead. Every request is noted in ``requests``.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        kind: ``status`` (an error answer), ``reset`` (the connection is reset inside the body), ``short`` (it is
            closed there), ``less`` (a well-formed answer with fewer bytes than were asked for), ``stall`` (nothing more
            comes), ``hang`` (nothing comes at all), ``whole`` (the range is ignored), ``misplaced`` (another range is
            sent), ``drop`` (closed without an answer).
        after: bytes of the body that are sent before it happens.
        status: status of an error answer.
        headers: headers added to the answer.
    """

    kind: str
    after: int = 0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte and the byte after the last one, if a closed range was asked for."""
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        return (int(match.group(1)), int(match.group(2)) + 1) if match and match.group(2) else None


@dataclass
class FileServer:
    """The server; use it as a context manager.

    Attributes:
        objects: path with its leading slash -> bytes.
        redirects: path -> address to send readers to.
        faults: spent one by one on requests for a range.
        choose: picks a fault by request, or None; asked where ``faults`` is empty.
        send_etag: give entity tags, and honour ``If-Match``.
        send_date: give the time of the last change, which is always the same.
        answer: may answer a request itself with (status, headers, body); None leaves it to the server.
        delay_seconds: how long every answer is held back.
        requests: what arrived.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    choose: Callable[[Request], Fault | None] = lambda _: None
    answer: Callable[[Request], tuple[int, dict[str, str], bytes] | None] = lambda _: None
    send_etag: bool = True
    send_date: bool = True
    delay_seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> FileServer:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._most = self._now = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def most_at_once(self) -> int:
        """Most requests that waited for their answer at the same time."""
        return self._most

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges asked for, in order of arrival."""
        return [request.range for request in self.requests if request.range]


def forward_to(url: str) -> Callable[[Request], tuple[int, dict[str, str], bytes]]:
    """Make an ``answer`` that passes requests on to another server, so that its answers can be broken."""
    host = urlsplit(url).netloc

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(host, timeout=30)
        try:
            connection.request(request.method, request.path, headers=request.headers)
            reply = connection.getresponse()
            unwanted = ("connection", "transfer-encoding", "date", "server")
            headers = {name: value for name, value in reply.getheaders() if name.lower() not in unwanted}
            return reply.status, headers, reply.read()
        finally:
            connection.close()

    return answer


@lru_cache(maxsize=64)
def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are the point of some tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FileServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def _reply(self, with_body: bool) -> None:
        owner = self.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers)
        with owner._lock:
            owner.requests.append(request)
            owner._now += 1
            owner._most = max(owner._most, owner._now)
        time.sleep(owner.delay_seconds)
        with owner._lock:
            owner._now -= 1  # before the answer: once it is out, the client may ask for more
            fault = None
            if with_body and request.range:
                fault = owner.faults.pop(0) if owner.faults else owner.choose(request)
        own = owner.answer(request)
        if own is not None:
            return self._send_own(*own, fault, with_body)
        path = unquote(self.path.partition("?")[0])
        if path in owner.redirects:
            return self._send(302, {"Location": owner.redirects[path]}, b"", with_body)
        if path not in owner.objects:
            return self._send(404, {}, b"nothing here", with_body)
        return self._send_object(request, owner.objects[path], fault, with_body)

    def _send_own(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None, with_body: bool
    ) -> None:
        """An answer made elsewhere, broken all the same."""
        if fault is None or status not in (200, 206):
            return self._send(status, headers, body, with_body)
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        if fault.kind == "status":
            return self._send(fault.status, dict(fault.headers), b"<Error><Code>SlowDown</Code></Error>", with_body)
        if fault.kind == "hang":
            self.owner._stop.wait(60)
        if fault.kind in ("reset", "short", "stall"):
            return self._break(fault, headers, body)
        return self._cut(reset=False)

    def _send_object(self, request: Request, data: bytes, fault: Fault | None, with_body: bool) -> None:
        owner = self.owner
        reply: dict[str, str] = {"Accept-Ranges": "bytes"}
        if owner.send_date:
            reply["Last-Modified"] = "Sat, 01 Jan 2022 00:00:00 GMT"
        if owner.send_etag:
            reply["ETag"] = _etag(data)
            wanted = request.headers.get("if-match")
            if wanted is not None and wanted not in ("*", reply["ETag"]):
                return self._send(412, reply, b"", with_body)
        if fault is not None:
            reply.update(fault.headers)
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind == "status":
            return self._send(fault.status, reply, b"<Error>try later</Error>", with_body)
        if kind == "hang":
            owner._stop.wait(60)
        if kind in ("drop", "hang"):
            return self._cut(reset=False)
        asked = request.range
        if asked is None or kind == "whole":
            return self._send(200, reply, data, with_body)
        begin, end = asked[0], min(asked[1], len(data))
        if begin >= end:
            return self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"", with_body)
        if fault is not None and kind == "less":
            end = begin + max(1, min(fault.after, end - begin))
        if kind == "misplaced":
            begin, end = (begin - 1, end - 1) if begin else (begin + 1, end + 1)
        reply["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        body = data[begin:end]
        if fault is not None and kind in ("reset", "short", "stall"):
            return self._break(fault, reply, body)
        return self._send(206, reply, body, with_body)

    def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _break(self, fault: Fault, headers: dict[str, str], body: bytes) -> None:
        self.send_response(206)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: fault.after])
        self.wfile.flush()
        if fault.kind == "stall":
            self.owner._stop.wait(60)
        self._cut(reset=fault.kind == "reset")

    def _cut(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass
