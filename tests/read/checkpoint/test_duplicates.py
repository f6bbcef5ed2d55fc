"""Tied and duplicate tensors are found, near copies are not, and little is read."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import duplicates, open_checkpoint
from spectrum_fast.read.checkpoint.duplicates import SAMPLE_BYTES, find_copies, tied_head_note, tied_names


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_copies_across_files_point_at_the_embedding(tmp_path):
    table = random(0, 100, 64)
    save_file({"lm_head.weight": table, "layers.0.q.weight": random(1, 100, 64)}, tmp_path / "a.safetensors")
    save_file({"model.embed_tokens.weight": table.clone()}, tmp_path / "b.safetensors")
    assert find_copies(open_checkpoint(tmp_path)) == {"lm_head.weight": "model.embed_tokens.weight"}


def test_the_first_in_natural_order_is_the_original(tmp_path):
    shared = random(0, 8, 8)
    save_file({f"layers.{i}.q.weight": shared.clone() for i in (10, 9, 2)}, tmp_path / "m.safetensors")
    assert find_copies(open_checkpoint(tmp_path)) == {
        "layers.9.q.weight": "layers.2.q.weight",
        "layers.10.q.weight": "layers.2.q.weight",
    }


def test_same_bytes_of_another_shape_or_type_are_no_tie(tmp_path):
    raw = torch.zeros(4, 4)
    save_file(
        {
            "a": raw,
            "b": torch.zeros(2, 8),
            "c": torch.zeros(4, 4, dtype=torch.int32),
            "d": torch.empty(0, 4),
            "e": torch.empty(0, 4),
        },
        tmp_path / "m.safetensors",
    )
    assert find_copies(open_checkpoint(tmp_path)) == {}


def test_vectors_are_left_out(tmp_path):
    save_file({"a": torch.ones(8), "b": torch.ones(8)}, tmp_path / "m.safetensors")
    assert find_copies(open_checkpoint(tmp_path)) == {}


@pytest.mark.parametrize("place", [0, 6_000, 40_000, 65_535])
def test_one_different_value_anywhere_is_no_tie(tmp_path, place):
    first = random(0, 256, 256)
    second = first.clone()
    second.view(-1)[place] += 1
    save_file({"a": first, "b": second}, tmp_path / "m.safetensors")
    assert find_copies(open_checkpoint(tmp_path)) == {}


def test_layers_that_differ_are_only_sampled(tmp_path, monkeypatch):
    count = 6
    tensors = {f"layers.{i}.q.weight": random(i, 512, 512) for i in range(count)}
    save_file({**tensors, "alone.weight": random(9, 512, 256)}, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    read = []
    real = duplicates.read_bytes
    monkeypatch.setattr(duplicates, "read_bytes", lambda fd, size, at: read.append(size) or real(fd, size, at))
    assert find_copies(checkpoint) == {}
    assert sum(read) == count * SAMPLE_BYTES


def test_large_copies_are_read_in_chunks_and_found(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "CHUNK_BYTES", 100_000)
    table = random(0, 300, 300)
    save_file({"a": table, "b": table.clone(), "c": random(1, 300, 300)}, tmp_path / "m.safetensors")
    assert find_copies(open_checkpoint(tmp_path)) == {"b": "a"}


def test_a_file_changed_since_its_header_was_read(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": random(0, 8, 8), "b": random(1, 8, 8)}, path)
    checkpoint = open_checkpoint(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(CheckpointError, match="replaced while being read"):
        find_copies(checkpoint)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (None, {"lm_head.weight", "encoder.embed_tokens.weight"}),
        ({"tie_word_embeddings": True}, {"lm_head.weight", "encoder.embed_tokens.weight"}),
        ({"text_config": {"tie_word_embeddings": False}}, {"encoder.embed_tokens.weight"}),
        ({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, None),
    ],
)
def test_only_tables_and_heads_are_one_parameter(config, tied):
    copies = dict.fromkeys(["lm_head.weight", "encoder.embed_tokens.weight", "layers.1.q.weight"], "shared.weight")
    copies["layers.2.k.weight"] = "layers.1.k.weight"
    expected = {"lm_head.weight", "encoder.embed_tokens.weight"} if tied is None else tied
    assert set(tied_names(copies, config)) == expected


def test_the_note_on_a_tied_head(tmp_path):
    table = random(0, 8, 4)
    save_file({"transformer.wte.weight": table}, tmp_path / "m.safetensors")
    tensors = open_checkpoint(tmp_path).tensors
    assert (
        tied_head_note(tensors, {"tie_word_embeddings": True})
        == "lm_head is tied to transformer.wte and is scored once"
    )
    assert tied_head_note(tensors, {"tie_word_embeddings": "yes"}) is None
    assert tied_head_note(tensors, None) is None
    save_file({"transformer.wte.weight": table, "lm_head.weight": table.clone()}, tmp_path / "m.safetensors")
    assert tied_head_note(open_checkpoint(tmp_path).tensors, {"tie_word_embeddings": True}) is None
