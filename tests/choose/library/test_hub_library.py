"""A library that is a dataset on the hub: a small hub on loopback, spoken to by huggingface_hub itself."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCORES = {f"model.layers.{i}.mlp.up_proj": {"snr": 1.0 + i, "type": "mlp.up_proj"} for i in range(4)}

Command = Callable[..., "subprocess.CompletedProcess[str]"]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as listing, downloading and committing to one dataset needs."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/org/scans/tree/main"):
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                    for name, data in self.files.items()
                ]
            )
        elif path.startswith("/datasets/org/scans/resolve/") and path.split("/", 6)[6] in self.files:
            data = self.files[path.split("/", 6)[6]]
            self.answer(data, ETag=f'"{_oid(data)}"')
        elif path in ("/api/datasets/org/scans", "/api/datasets/org/scans/revision/main"):
            self.answer({"id": "org/scans", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        else:
            self.answer({"error": "Repository not found"}, status=404, **{"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.answer({"error": "Invalid username or password."}, status=401)
        elif self.path.startswith("/api/datasets/org/scans/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path.startswith("/api/datasets/org/scans/commit/main"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer(
                {
                    "commitUrl": f"http://{self.headers['Host']}/datasets/org/scans/commit/1",
                    "commitOid": COMMIT,
                    "success": True,
                }
            )
        else:
            self.answer({"error": "not found"}, status=404)

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Command]:
    """``spectrum-fast scans`` in a process of its own: huggingface_hub reads its environment when it is imported."""
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def command(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment = {
            **kept,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "COLUMNS": "80",
            **extra,
        }
        return subprocess.run(
            [sys.executable, "-m", "spectrum_fast", "scans", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    yield command
    server.shutdown()
    server.server_close()
    thread.join()


def test_list_get_and_add(hub: Command, tmp_path: Path) -> None:
    text = json.dumps(SCORES, indent=4)
    Hub.files = {
        "README.md": b"",
        "model_snr_results/snr_results_org-good.json": text.encode(),
        "snr_results_org-empty.json": b"\n",
        "deep/er/snr_results_not-looked-at.json": b"{}",
    }
    listed = hub("list", "org/scans")
    assert listed.returncode == 1
    assert [line.split()[:3] for line in listed.stdout.splitlines()[2:]] == [
        ["org-empty", "spectrum", "broken"],
        ["org-good", "spectrum", "4"],
    ]
    assert listed.stderr.startswith("failed: snr_results_org-empty.json: expected JSON, found an empty file")

    target = tmp_path / "scan.json"
    got = hub("get", "hf://datasets/org/scans", "org/good", "-o", target)
    assert (got.returncode, got.stdout) == (0, ""), got.stderr
    assert target.read_text() == text

    target.write_text(text.replace("1.0", "9.0"))
    refused = hub("add", "org/scans", target, "--model", "org/new", HF_TOKEN="hf_wrong")  # noqa: S106
    assert refused.returncode == 2
    assert "cannot write to it" in refused.stderr
    assert "hf auth login" in refused.stderr
    assert "snr_results_org-new.json" not in Hub.files
    added = hub("add", "org/scans", target, "--model", "org/new", HF_TOKEN="hf_right")  # noqa: S106
    assert (added.returncode, added.stderr) == (
        0,
        "wrote snr_results_org-new.json in hf://datasets/org/scans@main\n",
    )
    assert json.loads(Hub.files["snr_results_org-new.json"])["model.layers.0.mlp.up_proj"]["snr"] == 9.0


def test_an_unknown_dataset_is_one_clear_line(hub: Command) -> None:
    done = hub("list", "org/other")
    assert (done.returncode, done.stdout) == (2, "")
    assert "hf://datasets/org/other@main: cannot list it: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
