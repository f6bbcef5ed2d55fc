"""GGUF headers: what the gguf package reads in them, or one clear error; names as on the hub."""

from __future__ import annotations

import re
import struct
import tracemalloc
from pathlib import Path

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES
from spectrum_fast.read.checkpoint.gguf import _TYPE_NUMBERS, read_gguf_header
from spectrum_fast.read.checkpoint.gguf_names import _FAMILY, _LAYER, _OWN, _TOP
from spectrum_fast.read.checkpoint.header import MAX_HEADER_BYTES, MAX_TENSORS

from support.gguf_files import LLAMA, GgufTensor, random_tensor, text, write_gguf

TENSORS = [
    random_tensor("token_embd.weight", "Q8_0", (40, 64)),
    random_tensor("output_norm.weight", "F32", (64,)),
    random_tensor("blk.0.attn_q.weight", "Q4_1", (64, 64)),
    random_tensor("blk.0.attn_k.weight", "F16", (32, 64)),
    random_tensor("blk.0.ffn_down.weight", "Q6_K", (64, 256)),
]
ENTRIES = LLAMA | {
    "general.name": "é",
    "x.flag": True,
    "x.rate": 0.5,
    "tokenizer.ggml.tokens": ["a", "", "b" * 70_000],
    "x.layers": [1, 2, 3],
    "x.long": list(range(5000)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


@pytest.mark.parametrize(("alignment", "version"), [(32, 3), (64, 2), (1, 3)])
def test_a_header_says_what_the_package_reads(path: Path, alignment: int, version: int) -> None:
    package = pytest.importorskip("gguf")
    path.write_bytes(write_gguf(TENSORS, ENTRIES, alignment=alignment, version=version))
    header, theirs = read_gguf_header(path), package.GGUFReader(path)
    assert {ref.name: (ref.dtype, ref.shape, ref.begin, ref.nbytes) for ref in header.tensors} == {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(int(extent) for extent in reversed(tensor.shape)),
            tensor.data_offset,
            tensor.n_bytes,
        )
        for tensor in theirs.tensors
    }
    assert header.data_begin == theirs.data_offset
    kept = {key: theirs.get_field(key).contents() for key in header.metadata}
    assert header.metadata == kept
    assert ENTRIES.keys() - header.metadata.keys() == {"tokenizer.ggml.tokens", "x.long"}


def test_the_types_are_those_of_the_package() -> None:
    constants = pytest.importorskip("gguf.constants")
    assert {int(kind): kind.name for kind in constants.GGMLQuantizationType} == _TYPE_NUMBERS
    sizes = {kind.name: size for kind, size in constants.GGML_QUANT_SIZES.items() if size[0] > 1}
    assert sizes == BLOCK_TYPES


def test_a_file_is_a_checkpoint_with_the_names_of_the_hub(path: Path) -> None:
    path.write_bytes(write_gguf(TENSORS, ENTRIES))
    checkpoint = open_checkpoint(path)
    assert [(ref.name, ref.interleaved_heads) for ref in checkpoint.tensors] == [
        ("model.embed_tokens.weight", 0),
        ("model.norm.weight", 0),
        ("model.layers.0.self_attn.q_proj.weight", 4),
        ("model.layers.0.self_attn.k_proj.weight", 2),
        ("model.layers.0.mlp.down_proj.weight", 0),
    ]
    assert checkpoint.config == {
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    assert checkpoint.name == "m"
    assert "quantised (Q4_1, Q6_K, Q8_0): rounding adds noise to the bulk" in checkpoint.notes[0]
    assert open_checkpoint(path.parent).fingerprint == checkpoint.fingerprint


def test_layers_in_different_types_are_noted(path: Path) -> None:
    mixed = [random_tensor(f"blk.{n}.attn_v.weight", kind, (32, 256)) for n, kind in enumerate(("Q4_K", "Q6_K"))]
    path.write_bytes(write_gguf(mixed, LLAMA))
    assert open_checkpoint(path).notes[1].endswith("layers differ in noise: 'self_attn.v_proj'")


def test_experts_are_tensors_of_their_own(path: Path) -> None:
    packed = random_tensor("blk.3.ffn_up_exps.weight", "Q8_0", (3, 8, 32))
    path.write_bytes(write_gguf([packed], {"general.architecture": "qwen3moe"}))
    refs = open_checkpoint(path).tensors
    assert [ref.name for ref in refs] == [f"model.layers.3.mlp.experts.{e}.up_proj.weight" for e in range(3)]
    assert [path.read_bytes()[ref.begin : ref.begin + ref.nbytes] for ref in refs] == [
        packed.data[e * 272 : (e + 1) * 272] for e in range(3)
    ]


def test_another_architecture_keeps_its_names(path: Path) -> None:
    path.write_bytes(write_gguf(TENSORS[2:3], {"general.architecture": "mamba"}))
    checkpoint = open_checkpoint(path)
    assert [ref.name for ref in checkpoint.tensors] == ["blk.0.attn_q.weight"]
    assert "no table for its architecture, 'mamba'" in checkpoint.notes[0]


@pytest.mark.parametrize("architecture", _FAMILY)
def test_the_package_maps_our_names_back(architecture: str) -> None:
    package = pytest.importorskip("gguf")
    kinds = {name: kind for kind, name in package.MODEL_ARCH_NAMES.items()}
    names = package.get_tensor_name_map(kinds[architecture], 2)
    own = {package.TENSOR_NAMES[kind].format(bid=1) for kind in package.MODEL_TENSORS[kinds[architecture]]}
    table = {
        f"blk.1.{short}": f"model.layers.1.{name}" for short, name in (_LAYER | _OWN.get(architecture, {})).items()
    }
    found = 0
    for short, name in (table | _TOP).items():
        if short not in own:
            continue
        found += 1
        theirs = names.get_name(name.replace(".*.", "."), try_suffixes=(".weight",)) or names.get_name(
            name.replace(".*.", ".0.")
        )
        if theirs is None and "experts" in name:  # the converter lays them on top of each other under another name
            assert re.fullmatch(r"model\.layers\.1\.(mlp|block_sparse_moe)\.experts\.\*\.(\w+_proj|w[123])", name)
            continue
        assert theirs == short, name
    assert found > 8


# --- folders -----------------------------------------------------------------------------------------------------


def test_the_files_of_a_split_model_are_one(tmp_path: Path) -> None:
    for number, tensors in enumerate((TENSORS[:2], TENSORS[2:])):
        entries = ENTRIES if number == 0 else {}
        part = tmp_path / f"m-0000{number + 1}-of-00002.gguf"
        part.write_bytes(write_gguf(tensors, entries | {"split.count": 2, "split.no": number}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors[2].name == "model.layers.0.self_attn.q_proj.weight"
    assert checkpoint.tensors[2].interleaved_heads == 4
    assert "one of 2 files of its model" in open_checkpoint(part).notes[0]
    part.unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 files m-\*-of-2\.gguf are missing"):
        open_checkpoint(tmp_path)


def test_quantisations_side_by_side_are_models_of_their_own(tmp_path: Path) -> None:
    for kind in ("Q4_K_M", "Q8_0"):
        (tmp_path / f"m.{kind}.gguf").write_bytes(write_gguf(TENSORS, ENTRIES))
    with pytest.raises(CheckpointError, match=r"found 2 GGUF models: m\.Q4_K_M\.gguf, m\.Q8_0\.gguf; pass one of"):
        open_checkpoint(tmp_path)


def test_what_config_json_says_goes_first(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(write_gguf(TENSORS, ENTRIES))
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    config = open_checkpoint(tmp_path).config
    assert config is not None
    assert (config["model_type"], config["num_attention_heads"]) == ("mistral", 4)


# --- what is broken ----------------------------------------------------------------------------------------------

ONE = GgufTensor("a", "F32", (4,), bytes(16))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the mark GGUF would end at byte 4, but the file has 0: it is truncated"),
        (b"GGML" + bytes(40), "expected the mark GGUF, found b'GGML'"),
        (write_gguf([ONE], version=1), "little-endian, found version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "found a big-endian file"),
        (write_gguf([ONE], counts=(MAX_TENSORS + 1, 0)), f"more than {MAX_TENSORS} tensors"),
        (write_gguf([ONE], counts=(1, 10_001)), "it has 10001 entries"),
        (write_gguf([ONE], counts=(2, 0)), "tensor"),
        (write_gguf([ONE], {"general.alignment": 3}), "expected a power of two up to 1048576, found 3"),
        (write_gguf([ONE], {"general.alignment": "x"}), "expected a power of two up to 1048576, found 'x'"),
        (write_gguf([ONE], {"a": 1, "b": 2}).replace(text("b"), text("a")), "entry 'a' occurs twice"),
        (write_gguf([ONE, ONE]), "tensor 'a' occurs twice"),
        (write_gguf([GgufTensor("a\n", "F32", (4,), bytes(16))]), r"name of printable characters, found '\\n'"),
        (write_gguf([GgufTensor("a", "F32", (1,) * 5, bytes(4))]), "at most 4 extents, found 5"),
        (write_gguf([GgufTensor("a", "F32", (2**40, 2**40), b"")]), "overflows 63 bits"),
        (write_gguf([GgufTensor("a", "Q4_0", (2, 33), bytes(36))]), "blocks of 32 along the last extent, found shape"),
        (write_gguf([GgufTensor("a", "Q4_2", (32,), bytes(18))]), "storage type 4, which this version does not know"),
        (write_gguf([GgufTensor("a", "F32", (400,), bytes(16))]), "ends at data offset 1600, but the file holds 32"),
        (write_gguf([GgufTensor("a", "F32", (4,), bytes(16), offset=32)]), "bytes before tensor 'a'"),
        (write_gguf([ONE, GgufTensor("b", "F32", (4,), bytes(16), offset=0)]), "'a' and 'b' overlap"),
        (write_gguf([ONE]) + bytes(32), "trailing bytes after the last tensor"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 13), "has the unknown type 13"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "at most 65536 bytes, found a length of 4611686018427387904"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "has the unknown type 9"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 10, 2**61),
            f"past the limit of {MAX_HEADER_BYTES}",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**61),
            "it is truncated",
        ),
    ],
)
def test_what_is_broken_is_one_clear_error(path: Path, raw: bytes, message: str) -> None:
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message) as caught:
            read_gguf_header(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20, "something was allocated for what the header claims"
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
