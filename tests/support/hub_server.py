"""A small hub on loopback, as huggingface_hub sees the real one: large files lie behind a signed address elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.file_server import FileServer, Request

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_loopbacktoken"  # noqa: S105 (no secret: a word for the loopback hub)


@dataclass
class HubServer:
    """One repository, ``org/name``, readable with :data:`TOKEN` only.

    Attributes:
        hub: answers for the listing and says where files lie; serves small files itself.
        network: serves large files under signed addresses.
        files: names and contents.
        signature: the one that is valid now; the hub hands it out.
    """

    hub: FileServer
    network: FileServer
    files: dict[str, bytes] = field(default_factory=dict)
    signature: int = 1

    def environment(self, home: Path) -> dict[str, str]:
        """Environment of a process that uses this hub and keeps its files in ``home``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {
            **kept,
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def answer_hub(self, request: Request) -> tuple[int, dict[str, str], bytes] | None:
        path = request.path.partition("?")[0]
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if path in ("/api/models/org/name", "/api/models/org/name/revision/main"):
            siblings = [{"rfilename": name} for name in self.files]
            body = {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings}
            return 200, {}, json.dumps(body).encode()
        name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if name == path or name not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = self.files[name]
        if not name.endswith(".safetensors"):
            return None  # served as it is, under the same path
        digest = hashlib.sha256(data).hexdigest()
        self.network.objects[f"/blobs/{digest}"] = data
        return (
            302,
            {
                "Location": f"http://localhost:{self.network.port}/blobs/{digest}?Signature={self.signature}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
            },
            b"",
        )

    def answer_network(self, request: Request) -> tuple[int, dict[str, str], bytes] | None:
        if not request.path.endswith(f"?Signature={self.signature}"):
            return 403, {}, b"<Error>Request has expired</Error>"
        return None


@contextmanager
def serve_hub(files: dict[str, bytes]) -> Iterator[HubServer]:
    """Serve a repository."""
    with FileServer() as hub, FileServer() as network:
        server = HubServer(hub, network, files)
        for name, data in files.items():
            hub.objects[f"/org/name/resolve/{COMMIT}/{name}"] = data
        hub.answer, network.answer = server.answer_hub, server.answer_network
        yield server
