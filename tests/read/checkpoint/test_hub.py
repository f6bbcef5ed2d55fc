"""Hub ids: from a real cache without a connection, and from a small hub on loopback.

huggingface_hub reads its environment when it is imported, so each case runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save, save_file

from spectrum_fast.read.checkpoint.hub import parse_hub_id

from support.processes import script

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def environment_of(home: Path, **environment: str) -> dict[str, str]:
    package = importlib.util.find_spec("spectrum_fast")
    assert package is not None
    assert package.origin is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": str(Path(package.origin).parents[1]),
        **environment,
    }


def open_in_process(source: str, home: Path, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, script("open_a_checkpoint"), source],
        cwd=home,
        env=environment_of(home, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "text", ["a", "a/b/c", "/a/b", "../a", "a/../b", "a/b@", "a/b@x/../y", "a/b.safetensors", "~/b", "a//b"]
)
def test_what_is_no_hub_id(text):
    assert parse_hub_id(text) is None


def test_hub_ids_with_revisions():
    assert parse_hub_id("org/na-me_1.5@refs/pr/3") == ("org/na-me_1.5", "refs/pr/3")


def test_offline_and_not_cached(tmp_path):
    error = open_in_process("org/name@v1", tmp_path, HF_HUB_OFFLINE="1")["error"]
    assert "HF_HUB_OFFLINE is set" in error
    assert "hf download org/name --revision v1" in error
    assert str(tmp_path) in error


def test_no_connection_and_not_cached(tmp_path):
    error = open_in_process("org/name", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")["error"]
    assert "the hub cannot be reached" in error
    assert "hf download org/name" in error


def write_cache(home: Path) -> Path:
    repository = home / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    save_file({"lm_head.weight": torch.ones(2, 2)}, repository / "blobs" / "aaaa")
    (repository / "blobs" / "bbbb").write_text('{"model_type": "tiny"}')
    (snapshot / "model.safetensors").symlink_to(Path("..", "..", "blobs", "aaaa"))
    (snapshot / "config.json").symlink_to(Path("..", "..", "blobs", "bbbb"))
    return snapshot


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_cached_repository_opens_without_a_connection(tmp_path, environment):
    write_cache(tmp_path)
    assert open_in_process("org/name", tmp_path, **environment) == {
        "name": "org/name",
        "tensors": ["lm_head.weight"],
        "notes": [f"org/name at commit {COMMIT} from the hub's cache"],
        "config": {"model_type": "tiny"},
    }
    assert "error" in open_in_process("org/name@other", tmp_path, **environment)


def test_a_cached_repository_that_lacks_shards_says_which(tmp_path):
    snapshot = write_cache(tmp_path)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    error = open_in_process("org/name", tmp_path, HF_HUB_OFFLINE="1")["error"]
    assert "missing: model-00001-of-00001.safetensors" in error


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as huggingface_hub needs to list and download one repository."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        headers = {"X-Repo-Commit": COMMIT}
        body, status = b"", 200
        if path.startswith("/api/models/org/name/tree/"):
            body = json.dumps(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                    for name, data in self.files.items()
                ]
            ).encode()
        elif path in ("/api/models/org/name", "/api/models/org/name/revision/main"):
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith("/org/name/resolve/") and path.split("/", 5)[5] in self.files:
            name = path.split("/", 5)[5]
            self.asked.append(name)
            body = self.files[name]
            headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'  # noqa: S324
        else:
            status = 404
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_only_what_is_read_is_downloaded(tmp_path, hub):
    shard = "model-00001-of-00001.safetensors"
    Hub.files = {
        "config.json": b'{"model_type": "tiny"}',
        "model.safetensors.index.json": json.dumps({"weight_map": {"w": shard}}).encode(),
        shard: save({"w": torch.ones(2, 2)}),
        "consolidated.safetensors": save({"v": torch.ones(2, 2)}),
        "fp16/model.safetensors": save({"u": torch.ones(2, 2)}),
        "pytorch_model.bin": b"\x80\x04",
        "modeling_evil.py": b"raise SystemExit",
        "README.md": b"",
    }
    opened = open_in_process("org/name", tmp_path, HF_ENDPOINT=hub)
    assert opened["tensors"] == ["w"]
    assert opened["config"] == {"model_type": "tiny"}
    assert set(Hub.asked) == {"config.json", "model.safetensors.index.json", shard}
    # what was downloaded opens again without a connection
    assert open_in_process("org/name", tmp_path, HF_HUB_OFFLINE="1")["tensors"] == ["w"]


def test_an_adapter_is_scanned_as_the_difference_that_it_makes(tmp_path, hub):
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    Hub.files = {
        "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}).encode(),
        "adapter_model.safetensors": save(
            {
                f"{name}.lora_A.weight": torch.eye(2, 40),
                f"{name}.lora_B.weight": torch.eye(5, 2) * torch.tensor([2.0, 1]),
            }
        ),
        "adapter_model.bin": b"\x80\x04",
        "tokenizer.json": b"{}",
        "checkpoint-9/adapter_model.safetensors": b"",
    }

    def scanned(**environment: str) -> dict:
        command = [
            sys.executable,
            "-m",
            "spectrum_fast",
            "scan",
            "org/name",
            "--quiet",
            "--spectra",
            "--out",
            "scan.json",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment_of(tmp_path, **environment), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "scan.json").read_text())

    first = scanned(HF_ENDPOINT=hub)
    (module,) = first["modules"]
    assert (first["model"], module["name"]) == ("org/name", "model.layers.0.self_attn.q_proj")
    assert (module["s_max"], module["mp_rank"], module["shape"]) == (pytest.approx(6), 2, [5, 40])  # 6 / 2 B A
    assert set(Hub.asked) == {"adapter_config.json", "adapter_model.safetensors"}
    assert scanned(HF_HUB_OFFLINE="1")["modules"] == [module]
    assert "found an adapter" in open_in_process("org/name", tmp_path, HF_HUB_OFFLINE="1")["error"]  # no model


def test_a_repository_of_pickles_is_refused_before_any_download(tmp_path, hub):
    Hub.files = {"pytorch_model.bin": b"\x80\x04", "config.json": b"{}"}
    assert "only pickles" in open_in_process("org/name", tmp_path, HF_ENDPOINT=hub)["error"]
    assert Hub.asked == []


def test_an_index_on_the_hub_that_names_a_path_is_refused(tmp_path, hub):
    Hub.files = {"model.safetensors.index.json": b'{"weight_map": {"w": "../../x.safetensors"}}'}
    assert "expected the plain name" in open_in_process("org/name", tmp_path, HF_ENDPOINT=hub)["error"]
    assert set(Hub.asked) == {"model.safetensors.index.json"}


def test_an_unknown_repository(tmp_path, hub):
    assert "does not know it" in open_in_process("org/other", tmp_path, HF_ENDPOINT=hub)["error"]
