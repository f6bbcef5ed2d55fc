"""config.json as plain data: what is read of it, and what each refusal says."""

from __future__ import annotations

import math

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.config import MAX_CONFIG_BYTES, read_config, ties_embeddings


def test_the_words_that_transformers_writes_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "é", "limits": [0.0, Infinity]}', encoding="utf-8")
    assert read_config(path) == {"model_type": "é", "limits": [0.0, math.inf]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "expected JSON: Expecting property name"),
        (b"\xff{}", "expected JSON: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"[" * 100_000, "expected JSON: "),
        (b"[]", "expected a JSON object, found list; download or save it again"),
        (b"3", "expected a JSON object, found int; download or save it again"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_path(tmp_path, content, reason):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert str(caught.value).endswith("; download or save it again")


def test_the_largest_file_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"{}".ljust(MAX_CONFIG_BYTES))
    assert read_config(path) == {}
    path.write_bytes(b"{}".ljust(MAX_CONFIG_BYTES + 1))
    with pytest.raises(CheckpointError, match=f"at most {MAX_CONFIG_BYTES} bytes, found {MAX_CONFIG_BYTES + 1}"):
        read_config(path)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (None, False),
        ({}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": 1}, False),
        ({"tie_word_embeddings": "true"}, False),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"text_config": {"tie_word_embeddings": True}, "tie_word_embeddings": False}, True),
        ({"text_config": [], "tie_word_embeddings": True}, True),
        ({"text_config": "x"}, False),
        ({"vision_config": {"tie_word_embeddings": True}}, False),
    ],
)
def test_embeddings_are_tied_where_the_model_or_its_text_part_says_so(config, tied):
    assert (ties_embeddings(config) is True) is tied
