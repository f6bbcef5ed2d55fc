"""Hub ids read over the network: nothing is stored, the token stays with the hub, signed addresses are renewed.

huggingface_hub reads its environment when it is imported, so each case runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from support.hub_server import COMMIT, TOKEN, HubServer, serve_hub
from support.processes import script

pytest.importorskip("obstore")


@pytest.fixture
def files() -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(0)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    return {
        "config.json": b'{"model_type": "tiny"}',
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode(),
        shards[0]: save({"a": torch.randn(500, 300, generator=generator)}),
        shards[1]: save({"b": torch.randn(200, 300, generator=generator)}),
        "fp16/model.safetensors": save({"u": torch.ones(2, 2)}),
        "pytorch_model.bin": b"\x80\x04",
    }


def run(hub: HubServer, home: Path, *arguments: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, script("read_a_hub_without_store"), *arguments],
        env={**hub.environment(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "Signature" not in done.stdout + done.stderr
    return json.loads(done.stdout)


def stored(home: Path) -> list[str]:
    return [str(path) for path in home.rglob("*") if path.is_file() and path.stat().st_size > 200]


def test_the_files_are_read_and_nothing_is_stored(files, tmp_path):
    with serve_hub(files) as hub:
        found = run(hub, tmp_path, "org/name")
        assert found["config"] == {"model_type": "tiny"}
        assert found["notes"] == [f"org/name at commit {COMMIT}, read over the network and not stored"]
        assert found["files"] == [f"hf://org/name@{COMMIT}/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        assert found["digests"] == {
            name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.startswith("model-")
        }
        assert hashlib.sha256(files["model-00002-of-00002.safetensors"]).hexdigest() in found["stamp"]
        assert not any("authorization" in request.headers for request in hub.network.requests)
        assert all(request.range for request in hub.network.requests)
        asked = {request.path.rpartition("/")[2] for request in hub.hub.requests}
        assert not asked & {"fp16", "pytorch_model.bin"}
    assert stored(tmp_path) == []


def test_an_adapter(tmp_path):
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    files = {
        "adapter_config.json": b'{"peft_type": "LORA", "r": 1, "lora_alpha": 3}',
        "adapter_model.safetensors": save(
            {f"{name}.lora_A.weight": torch.eye(1, 200), f"{name}.lora_B.weight": torch.eye(300, 1)}
        ),
    }
    command = [sys.executable, "-m", "spectrum_fast", "scan", "org/name", "--no-store", "--quiet", "--out"]
    with serve_hub(files) as hub:
        out = tmp_path / "scan.json"
        done = subprocess.run(
            [*command, str(out)], env=hub.environment(tmp_path / "home"), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    (module,) = json.loads(out.read_text())["modules"]
    assert (module["s_max"], module["mp_rank"]) == (pytest.approx(3), 1)
    assert stored(tmp_path / "home") == []


def test_a_signature_that_runs_out_is_renewed(files, tmp_path):
    with serve_hub(files) as hub:
        known = hub.hub.answer

        def answer(request):
            if request.path == "/expire":
                hub.signature += 1
                return 200, {}, b""
            return known(request)

        hub.hub.answer = answer
        found = run(hub, tmp_path, "org/name", f"{hub.hub.url}/expire")
        assert found["digests"] == {
            name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.startswith("model-")
        }
        assert hub.signature == 3


def test_a_wrong_token(files, tmp_path):
    with serve_hub(files) as hub:
        assert "does not know it" in run(hub, tmp_path, "org/name", HF_TOKEN="hf_other")["error"]  # noqa: S106


def test_offline(files, tmp_path):
    with serve_hub(files) as hub:
        assert "needs a connection" in run(hub, tmp_path, "org/name", HF_HUB_OFFLINE="1")["error"]
        assert hub.hub.requests == []


def test_no_hub(files, tmp_path):
    with serve_hub(files) as hub:
        error = run(hub, tmp_path, "org/name", HF_ENDPOINT="http://127.0.0.1:9")["error"]
        assert "the hub cannot be reached" in error
        assert "--no-store" in error


def test_a_file_that_is_not_what_the_hub_said(files, tmp_path):
    with serve_hub(files) as hub:
        data = files["model-00001-of-00002.safetensors"]
        blob = f"/blobs/{hashlib.sha256(data).hexdigest()}"
        known = hub.hub.answer

        def answer(request):
            found = known(request)
            if blob in hub.network.objects:
                hub.network.objects[blob] = data[:-1]
            return found

        hub.hub.answer = answer
        error = run(hub, tmp_path, "org/name")["error"]
        assert f"expected {len(data)} bytes, found {len(data) - 1}" in error


def test_an_index_that_names_a_path(files, tmp_path):
    files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../../x.safetensors"}}'
    with serve_hub(files) as hub:
        assert "expected the plain name" in run(hub, tmp_path, "org/name")["error"]
