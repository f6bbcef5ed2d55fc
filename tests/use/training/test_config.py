"""Configurations: theirs as it is, ours checked, and one clear error for everything else."""

from __future__ import annotations

import pytest

from spectrum_fast.errors import UsageError

pytest.importorskip("trl")

from spectrum_fast.use.training.config import load_config, parse_config
from spectrum_fast.use.training.yaml_file import read_yaml

GOOD = {
    "model_name_or_path": "some/model",
    "dataset_name": "some/data",
    "output_dir": "out",
    "spectrum": {"method": "spectrum", "top_percent": 50},
}


def changed(**changes):
    return {**GOOD, **{key: value for key, value in changes.items() if value is not ...}}


def test_their_fields_go_where_they_belong():
    config = parse_config(
        changed(learning_rate=1e-5, lora_r=8, dataset_train_split="train", test_split_size=0.1), "run.yaml"
    )
    assert config.trainer == {"output_dir": "out", "learning_rate": 1e-5}
    assert config.model == {"model_name_or_path": "some/model", "lora_r": 8}
    assert config.script == {"dataset_name": "some/data", "dataset_train_split": "train"}
    assert config.mixture == {"test_split_size": 0.1}
    assert (config.method.name, config.spectrum.top_percent, config.spectrum.partial) == ("spectrum", 50, "aggregate")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1e-5}, r"learning_rat: no such key; nearest: learning_rate"),
        ({"learning_rate": "fast"}, r"learning_rate: expected a number, found 'fast'"),
        ({"max_steps": 1.5}, r"max_steps: expected a whole number, found 1\.5"),
        ({"bf16": "yes"}, r"bf16: expected true or false or null, found 'yes'"),
        ({"trust_remote_code": True}, r"trust_remote_code: code that comes with a checkpoint is never run"),
        ({"model_name_or_path": None}, r"model_name_or_path: expected a folder or hub id"),
        ({"output_dir": None}, r"output_dir: expected a folder"),
        ({"dataset_name": None}, r"expected one of dataset_name .* found neither"),
        ({"datasets": [{"path": "x"}]}, r"found both"),
        ({"load_in_4bit": True}, r"load_in_4bit: spectrum.method decides it, which is spectrum"),
        ({"spectrum": None}, r"spectrum\.method: expected what to train"),
        ({"spectrum": ["a"]}, r"spectrum: expected keys and values"),
        ({"spectrum": {"method": "spectrm"}}, r"spectrum\.method: expected one of full.*nearest: spectrum"),
        ({"spectrum": {"method": "spectrum", "top_percnt": 1}}, r"spectrum\.top_percnt: no such key; nearest: top_per"),
        ({"spectrum": {"method": "spectrum", "top_percent": 0}}, r"top percent: expected a number in \(0, 100\]"),
        ({"spectrum": {"method": "spectrum", "shard": "zero4"}}, r"spectrum\.shard: expected one of none, zero2"),
        ({"spectrum": {"method": "spectrum", "offload": "all"}}, r"offload: needs spectrum\.shard"),
        ({"spectrum": {"method": "spectrum", "shard": "zero2", "offload": "all"}}, r"use shard zero3"),
        ({"spectrum": {"method": "spectrum", "selection": "a", "top_percent": 5}}, r"so top_percent has no effect"),
        ({"spectrum": {"method": "random", "selection": "a"}}, r"method random: needs to know all modules"),
        ({"spectrum": {"method": "spectrum", "criterion": "svd"}}, r"svd"),
        ({"deepspeed": "z.json", "spectrum": {"method": "full", "shard": "zero3"}}, r"spectrum\.shard makes"),
        (
            {"lora_target_modules": ["q"], "spectrum": {"method": "spectrum-lora"}},
            r"lora_target_modules: set by the selection",
        ),
    ],
)
def test_one_clear_error(changes, message):
    with pytest.raises(UsageError, match=r"^run\.yaml: .*" + message):
        parse_config(changed(**changes), "run.yaml")


def test_yaml_is_read_strictly(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-5\nsmall: 2.5E-06\nname: 1e\nspectrum:\n  method: full\n")
    assert read_yaml(path, ["spectrum.method=lora", "spectrum.seed=3", "new.key=[1, x]"]) == {
        "learning_rate": 1e-5,
        "small": 2.5e-06,
        "name": "1e",
        "spectrum": {"method": "lora", "seed": 3},
        "new": {"key": [1, "x"]},
    }
    for override, message in (("spectrum", "expected key=value"), ("name.x=1", "'name' holds a value, not keys")):
        with pytest.raises(UsageError, match=message):
            read_yaml(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "the key 'a' stands twice"),
        ("a: [1\n", "expected YAML of plain data"),
        ("a: !!python/object/apply:os.system ['true']\n", "expected YAML of plain data"),
        ("- a\n", "expected keys and values, found list"),
        ("", "expected keys and values, found nothing"),
        ("1: 2\n", "expected a text as key, found 1"),
    ],
)
def test_what_is_no_configuration(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
