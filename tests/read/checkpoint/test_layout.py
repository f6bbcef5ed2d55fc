"""Which files of a listing are the model, and what a user reads where that cannot be told."""

from __future__ import annotations

import shlex

import pytest
import torch
from safetensors.torch import load_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.layout import STANDARD_FILE, STANDARD_INDEX, Layout, choose_layout


def refusal(*names: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        choose_layout("some/folder", names)
    assert str(caught.value).startswith("some/folder: ")
    return str(caught.value)


def numbered(*numbers: int, of: int, stem: str = "model") -> tuple[str, ...]:
    return tuple(f"{stem}-{number:05}-of-{of:05}.safetensors" for number in numbers)


def test_the_standard_file_goes_before_everything_and_the_rest_is_noted():
    layout = choose_layout("f", ["x10.safetensors", STANDARD_INDEX, STANDARD_FILE, "x9.safetensors"])
    passed = f"x9.safetensors, x10.safetensors, {STANDARD_INDEX}"
    assert layout == Layout(None, (STANDARD_FILE,), (f"{STANDARD_FILE} was read; not read: {passed}",))
    assert choose_layout("f", [STANDARD_FILE, "config.json"]) == Layout(None, (STANDARD_FILE,), ())


def test_an_index_goes_before_other_files():
    files = numbered(1, 2, of=2)
    assert choose_layout("f", [*files, STANDARD_INDEX]) == Layout(STANDARD_INDEX, (), ())
    other = "model.fp8.safetensors.index.json"
    assert choose_layout("f", [*files, other]) == Layout(other, (), ())
    noted = (f"{STANDARD_INDEX} was read; not read: {other}",)
    assert choose_layout("f", [other, STANDARD_INDEX]) == Layout(STANDARD_INDEX, (), noted)


def test_several_indexes_are_named_in_natural_order():
    text = refusal("v10.safetensors.index.json", "v9.safetensors.index.json")
    assert f"several index files and none named {STANDARD_INDEX}" in text
    assert "v9.safetensors.index.json, v10.safetensors.index.json; move the variant" in text


def test_loose_files_are_read_in_natural_order():
    assert choose_layout("f", ["b.safetensors", "a10.safetensors", "a9.safetensors", "a.txt"]) == Layout(
        None, ("a9.safetensors", "a10.safetensors", "b.safetensors"), ()
    )


@pytest.mark.parametrize("files", [numbered(1, 2, 3, of=3), numbered(0, 1, 2, of=3), numbered(1, of=1)])
def test_a_complete_set_counts_from_0_or_from_1(files):
    assert choose_layout("f", files).files == files


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (numbered(1, 3, of=3), "1 of 3 files model-*-of-3.safetensors"),
        (numbered(2, 3, of=3), "1 of 3 files"),
        (numbered(0, 2, of=3), "1 of 3 files"),
        (numbered(0, 3, of=3), "2 of 3 files"),
        (numbered(3, of=4), "3 of 4 files"),
        (numbered(1, 2, of=2) + numbered(1, of=2, stem="vision"), "1 of 2 files vision-*-of-2.safetensors"),
        (numbered(1, of=2) + numbered(2, of=3), "1 of 2 files"),
    ],
)
def test_a_gap_in_a_numbered_set_is_a_broken_download(files, missing):
    text = refusal(*files)
    assert missing in text
    assert "are missing" in text
    assert "download the checkpoint again" in text


def test_names_that_only_look_numbered_are_no_set():
    files = ("a-1-of-2.safetensors.safetensors", "model-0000001-of-2.safetensors", "-1-of-2.safetensors")
    assert set(choose_layout("f", files).files) == set(files)


def test_pickles_are_listed_and_the_way_out_is_a_command():
    text = refusal("w10.bin", "w9.bin", "x.pt", "README.md")
    assert "found only pickles (w9.bin, w10.bin, x.pt), which run code" in text
    assert "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)" in text
    for ending in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"):
        assert f"(x{ending})" in refusal(f"x{ending}")


def test_the_way_out_of_pickles_keeps_every_name(tmp_path, monkeypatch):
    """The command as it is said, on a model whose head is its table: both names stay."""
    table = torch.arange(6.0).reshape(2, 3)
    torch.save({"model.embed_tokens.weight": table, "lm_head.weight": table}, tmp_path / "x.bin")
    command = shlex.split(refusal("x.bin").partition("file by file: ")[2].replace("FILE", "x"))
    assert command[:2] == ["python", "-c"]
    monkeypatch.chdir(tmp_path)
    exec(command[2])  # noqa: S102 - our own words
    found = load_file("x.safetensors")
    assert set(found) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(value, table) for value in found.values())


def test_an_adapter_is_no_model_and_the_way_out_is_said():
    files = ("adapter_config.json", "adapter_model.safetensors", "README.md")
    assert "found an adapter (LoRA or the like: adapter_config.json)" in refusal(*files)
    assert "merge_and_unload().save_pretrained(NEW_FOLDER)" in refusal("adapter_config.json", "adapter_model.bin")
    assert choose_layout("f", [*files, STANDARD_FILE]).files == (STANDARD_FILE,)
    assert choose_layout("f", [*files, *numbered(1, 2, of=2), STANDARD_INDEX]).index == STANDARD_INDEX


def test_a_long_list_is_cut_after_eight():
    names = [f"w{i}.bin" for i in range(10)]
    assert "(w0.bin, w1.bin, w2.bin, w3.bin, w4.bin, w5.bin, w6.bin, w7.bin and 2 more)" in refusal(*names)
    assert "w7.bin)" in refusal(*names[:8])


def test_other_folders_say_what_to_pass():
    text = refusal("config.json")
    assert "no *.safetensors or *.gguf file in this folder; pass the folder that holds them" in text
    assert "folders below are not searched" in text
    assert refusal() == text
