"""Folders and files behind https, s3 and gs open as the same checkpoint that lies on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import Checkpoint, open_checkpoint
from spectrum_fast.read.checkpoint.duplicates import find_copies
from spectrum_fast.read.storage.remote_file import OPENING_BYTES
from spectrum_fast.read.stream import load_tensor, stream_weights

from support.file_server import FileServer, Request
from support.s3_server import serve_s3, use_s3
from support.streams import plans_of

pytest.importorskip("obstore")


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards with an index, a configuration, and a tensor stored twice."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    table = random(0, 400, 300)
    save_file({"embed_tokens.weight": table, "layers.0.q.weight": random(1, 300, 300)}, folder / "m-1.safetensors")
    save_file({"lm_head.weight": table.clone(), "layers.1.q.weight": random(2, 300, 300)}, folder / "m-2.safetensors")
    weight_map = {
        "embed_tokens.weight": "m-1.safetensors",
        "layers.0.q.weight": "m-1.safetensors",
        "lm_head.weight": "m-2.safetensors",
        "layers.1.q.weight": "m-2.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    return folder


def serve(server: FileServer, folder: Path, under: str) -> None:
    for path in folder.iterdir():
        server.objects[f"{under}{path.name}"] = path.read_bytes()


def assert_same(remote: Checkpoint, local: Checkpoint) -> None:
    assert remote.fingerprint == local.fingerprint
    assert remote.config == local.config
    assert [(r.name, r.dtype, r.shape, r.begin, r.nbytes, r.file.name) for r in remote.tensors] == [
        (r.name, r.dtype, r.shape, r.begin, r.nbytes, r.file.name) for r in local.tensors
    ]
    assert find_copies(remote) == find_copies(local)
    with stream_weights(plans_of(remote.tensors)) as stream:
        for there, here in zip(stream, local.tensors, strict=True):
            assert torch.equal(there.main, load_tensor(here))


@pytest.mark.parametrize("address", ["/a/tiny%20model", "/a/tiny%20model/", "/a/tiny%20model?sig=x%2Fy"])
def test_a_web_folder_with_an_index(server, sharded, address):
    serve(server, sharded, "/a/tiny model/")
    remote = open_checkpoint(server.url + address)
    assert_same(remote, open_checkpoint(sharded))
    assert "cannot be listed" in remote.notes[0]
    assert "sig" not in remote.source
    assert all(request.path.endswith("?sig=x%2Fy") == ("?" in address) for request in server.requests)


def test_a_web_folder_with_one_file(server, tmp_path):
    save_file({"w": random(0, 5, 5)}, tmp_path / "model.safetensors")
    serve(server, tmp_path, "/")
    remote = open_checkpoint(server.url)
    assert_same(remote, open_checkpoint(tmp_path))
    assert remote.config is None


def test_one_file_by_its_address(server, sharded):
    serve(server, sharded, "/x/")
    remote = open_checkpoint(f"{server.url}/x/m-1.safetensors")
    assert (remote.name, len(remote.tensors)) == ("m-1", 2)
    assert_same(remote, open_checkpoint(sharded / "m-1.safetensors"))


def test_headers_take_one_request_each_and_long_ones_two(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SPECTRUM_FAST_REMOTE_PART_MIB")
    tensors = {f"layers.{i}.a.rather.long.name.so.that.the.header.grows.weight": torch.ones(1) for i in range(2000)}
    save_file(tensors, tmp_path / "model.safetensors")
    serve(server, tmp_path, "/")
    open_checkpoint(f"{server.url}/model.safetensors")
    first, second = server.ranges()
    assert first == (0, OPENING_BYTES)
    assert second[1] > OPENING_BYTES
    server.requests.clear()
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    serve(server, tmp_path, "/")
    open_checkpoint(f"{server.url}/model.safetensors")
    assert len(server.requests) == 1


def test_neither_file_nor_index(server):
    with pytest.raises(CheckpointError, match=r"found neither .*404 Not Found.*cannot be listed"):
        open_checkpoint(f"{server.url}/none")


def test_a_server_that_hides_what_is_missing(server, sharded):
    serve(server, sharded, "/m/")
    server.answer = lambda request: None if request.path in server.objects else (403, {}, b"")
    assert_same(open_checkpoint(f"{server.url}/m"), open_checkpoint(sharded))


def test_a_shard_that_is_missing(server, sharded):
    serve(server, sharded, "/m/")
    del server.objects["/m/m-2.safetensors"]
    with pytest.raises(CheckpointError, match=r"m/m-2\.safetensors: cannot be read: 404 Not Found"):
        open_checkpoint(f"{server.url}/m")


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/x.safetensors", "http://other/x.safetensors", "a\\..\\x.safetensors", ".."]
)
def test_an_index_cannot_lead_elsewhere(server, shard):
    server.objects["/m/model.safetensors.index.json"] = json.dumps({"weight_map": {"w": shard}}).encode()
    with pytest.raises(CheckpointError, match="expected the plain name"):
        open_checkpoint(f"{server.url}/m")
    assert all(request.path.startswith("/m/") for request in server.requests)


@pytest.mark.parametrize("shard", ["%2e%2e%2fx.safetensors", "..%2fx.safetensors", "a?b.safetensors", "a#.safetensors"])
def test_an_index_cannot_lead_elsewhere_by_escapes(server, tmp_path, shard):
    save_file({"w": torch.ones(2, 2)}, tmp_path / "x")
    server.objects["/x.safetensors"] = (tmp_path / "x").read_bytes()
    server.objects["/m/model.safetensors.index.json"] = json.dumps({"weight_map": {"w": shard}}).encode()
    with pytest.raises(CheckpointError, match="404 Not Found"):
        open_checkpoint(f"{server.url}/m")
    server.objects[f"/m/{shard}"] = (tmp_path / "x").read_bytes()
    assert [ref.file.name for ref in open_checkpoint(f"{server.url}/m").tensors] == [shard]


def test_few_bytes_are_read_twice_to_find_copies(server, sharded):
    serve(server, sharded, "/m/")
    remote = open_checkpoint(f"{server.url}/m")
    server.requests.clear()
    assert find_copies(remote) == {"lm_head.weight": "embed_tokens.weight"}
    copies = 2 * 400 * 300 * 4
    asked = sum(end - begin for begin, end in server.ranges() if begin)
    assert asked < copies + 16 * 4096  # the copies themselves, and blocks of the rest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://host/m.safetensors", "expected https://host/"),
        ("https:///m.safetensors", "expected https://host/"),
        ("s3://", "expected https://host/"),
        ("file:///etc/passwd", "expected https://host/"),
        ("https://u:pw@/x", "expected https://host/"),
        ("https://host/model.bin", r"expected a folder, a \.safetensors or \.gguf file"),
        ("https://host/model.safetensors.index.json", "expected the folder of an index"),
    ],
)
def test_addresses_that_are_none(text, reason):
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_checkpoint(text)
    assert "pw" not in str(caught.value)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """An S3 server on loopback."""
    with serve_s3() as url:
        yield url


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An empty bucket ``models``, and the environment that leads to it."""
    bucket = use_s3(moto, monkeypatch).Bucket("models")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def test_a_folder_of_a_bucket(bucket, sharded):
    for path in sharded.iterdir():
        bucket.upload_file(str(path), f"org/tiny model+1/{path.name}")
    bucket.put_object(Key="org/tiny model+1/below/model.safetensors", Body=b"not looked at")
    bucket.put_object(Key="org/tiny model+1/notes.safetensors", Body=b"not looked at either")
    remote = open_checkpoint("s3://models/org/tiny model+1")
    assert_same(remote, open_checkpoint(sharded))
    assert remote.name == "tiny model+1"
    assert remote.notes == ("model.safetensors.index.json was followed; not read: notes.safetensors",)


def test_a_file_of_a_bucket(bucket, sharded):
    bucket.upload_file(str(sharded / "m-1.safetensors"), "m-1.safetensors")
    assert_same(open_checkpoint("s3://models/m-1.safetensors"), open_checkpoint(sharded / "m-1.safetensors"))
    assert_same(open_checkpoint("s3://models"), open_checkpoint(sharded / "m-1.safetensors"))


def test_an_object_that_is_replaced(bucket, sharded):
    bucket.upload_file(str(sharded / "m-1.safetensors"), "m-1.safetensors")
    remote = open_checkpoint("s3://models/m-1.safetensors")
    bucket.put_object(Key="m-1.safetensors", Body=bytes((sharded / "m-1.safetensors").stat().st_size))
    with pytest.raises(CheckpointError, match=r"s3://models/m-1\.safetensors.*replaced"):
        list(stream_weights(plans_of(remote.tensors)))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://models/none", r"no \*\.safetensors or \*\.gguf file"),
        ("s3://models/none.safetensors", "404 Not Found; check the address"),
        ("s3://other/none", "404 Not Found; check the address"),
    ],
)
def test_what_is_not_in_the_bucket(bucket, address, reason):
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_checkpoint(address)
    assert address in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_bucket_that_refuses_names_the_variables(server, monkeypatch):
    server.answer = lambda _: (403, {}, b"<Error><Code>SignatureDoesNotMatch</Code><A>s3cret</A></Error>")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    for address in ("s3://models/m.safetensors", "s3://models/folder"):
        with pytest.raises(CheckpointError, match=r"403 Forbidden; set AWS_ACCESS_KEY_ID") as caught:
            open_checkpoint(address)
        assert "s3cret" not in str(caught.value)


def test_a_folder_of_a_google_bucket(server, sharded, monkeypatch):
    """Google's XML interface: the list, and objects whose key is one escaped path component."""
    serve(server, sharded, "/models/org/tiny/")
    entries = "".join(
        f"<Contents><Key>org/tiny/{path.name}</Key><Size>{path.stat().st_size}</Size>"
        "<LastModified>2022-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
        for path in sharded.iterdir()
    )

    def answer(request: Request) -> tuple[int, dict[str, str], bytes] | None:
        if "list-type=2" not in request.path:
            return None
        assert "prefix=org%2Ftiny%2F" in request.path
        return 200, {}, f"<ListBucketResult>{entries}</ListBucketResult>".encode()

    server.answer = answer
    monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    assert_same(open_checkpoint("gs://models/org/tiny/"), open_checkpoint(sharded))
