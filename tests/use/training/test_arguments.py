"""Configurations: theirs as it is, ours checked, and one clear error for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spectrum_fast.errors import UsageError

pytest.importorskip("trl")

from spectrum_fast.use.training.arguments import parse_run, read_run

GOOD = {
    "model_name_or_path": "some/model",
    "dataset_name": "some/data",
    "output_dir": "out",
    "spectrum": {"method": "spectrum", "top_percent": 50},
}


def changed(**changes):
    return {**GOOD, **{key: value for key, value in changes.items() if value is not ...}}


def test_their_fields_go_where_they_belong():
    run = parse_run(changed(learning_rate=1e-5, lora_r=8, dataset_train_split="train", test_split_size=0.1), "run.yaml")
    script, training, model, mixture = run.make()
    assert (training.output_dir, training.learning_rate) == ("out", 1e-5)
    assert (model.model_name_or_path, model.lora_r) == ("some/model", 8)
    assert (script.dataset_name, script.dataset_train_split) == ("some/data", "train")
    assert mixture.test_split_size == 0.1
    assert (run.spectrum.method, run.spectrum.top_percent, run.spectrum.partial) == ("spectrum", 50, "aggregate")
    assert type(training).__name__ == "SFTConfig"
    preference = parse_run(changed(beta=0.2, spectrum={"method": "full", "trainer": "dpo"}), "run.yaml")
    assert preference.make()[1].beta == 0.2


RECIPES = sorted((Path(__file__).parents[3] / "examples" / "train").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_without_our_section_it_is_the_file_that_trls_own_command_reads(path, tmp_path):
    from trl.scripts.sft import make_parser

    document = yaml.safe_load(path.read_text())
    del document["spectrum"]
    assert read_run(path).values["deepspeed"] == document.pop("deepspeed", None)  # made once, it divides every model
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(document | {"use_cpu": True}))
    theirs = make_parser().parse_args_and_config(["--config", str(plain)])
    ours = read_run(path, ["deepspeed=null"]).make()
    for mine, other in zip(ours, theirs, strict=True):
        left, right = vars(mine), vars(other)
        assert {key for key in left if left[key] != right.get(key)} <= {"distributed_state", "accelerator_config"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1e-5}, r"learning_rat: no such key; nearest: learning_rate"),
        ({"learning_rate": "fast"}, r"learning_rate: invalid float value: 'fast'"),
        ({"max_steps": 1.5}, r"max_steps: invalid int value: '1\.5'"),
        ({"bf16": "perhaps"}, r"bf16: Truthy value expected: got perhaps"),
        ({"trust_remote_code": True}, r"trust_remote_code: code that comes with a checkpoint is never run"),
        ({"model_name_or_path": None}, r"model_name_or_path: expected a folder or hub id"),
        ({"output_dir": None}, r"output_dir: expected a folder"),
        ({"dataset_name": None}, r"expected one of dataset_name .* found neither"),
        ({"datasets": [{"path": "x"}]}, r"found both"),
        ({"load_in_4bit": True}, r"load_in_4bit: spectrum.method decides it, which is spectrum"),
        ({"spectrum": None}, r"spectrum: method: expected what to train"),
        ({"spectrum": ["a"]}, r"spectrum: expected keys and values"),
        ({"spectrum": {"method": "spectrm"}}, r"spectrum: unknown method .*: expected one of full.*nearest: spectrum"),
        ({"spectrum": {"method": "spectrum", "top_percnt": 1}}, r"spectrum: top_percnt: no such key; nearest: top_per"),
        ({"spectrum": {"method": "spectrum", "top_percent": 0}}, r"top percent: expected a number in \(0, 100\]"),
        ({"spectrum": {"method": "spectrum", "selection": "a", "top_percent": 5}}, r"so top_percent has no effect"),
        ({"spectrum": {"method": "random", "selection": "a"}}, r"method random: needs to know all modules"),
        ({"spectrum": {"method": "spectrum", "criterion": "svd"}}, r"svd"),
        ({"spectrum": {"method": "spectrum", "order": "bottom"}}, r"spectrum: order: no such key"),
        ({"spectrum": {"method": "random", "seed": "three"}}, r"spectrum: seed: expected a whole number"),
        (
            {"spectrum": {"method": "spectrum", "allow_incomplete": "perhaps"}},
            r"allow incomplete: expected true or",
        ),
        (
            {"lora_target_modules": ["q"], "spectrum": {"method": "spectrum-lora"}},
            r"lora_target_modules: spectrum\.method decides it, which is spectrum-lora",
        ),
    ],
)
def test_one_clear_error(changes, message):
    with pytest.raises(UsageError, match=r"^run\.yaml: .*" + message):
        parse_run(changed(**changes), "run.yaml").make()


def test_numbers_and_changes_are_read_as_their_fields_have_them(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump({**GOOD, "lr_scheduler_kwargs": None}) + "learning_rate: 1e-5\nwarmup_steps: 2.5E-01\n"
    )
    changes = [
        "spectrum.method=random",
        "spectrum.seed=3",
        "spectrum.include=[a, b]",
        "lr_scheduler_kwargs={x: 1.0e-3}",
    ]
    run = read_run(path, [*changes, "weight_decay=1e-2"])
    training = run.make()[1]
    assert (training.learning_rate, training.warmup_steps, training.lr_scheduler_kwargs) == (1e-5, 0.25, {"x": 1e-3})
    assert training.weight_decay == 0.01
    assert (run.spectrum.method, run.spectrum.seed, run.spectrum.include) == ("random", 3, ["a", "b"])
    for override, message in (
        ("spectrum", "expected key=value"),
        ("output_dir.x=1", "expected keys and values, found"),
    ):
        with pytest.raises(UsageError, match=message):
            read_run(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "expected YAML of plain data"),
        ("a: !!python/object/apply:os.system ['true']\n", "expected YAML of plain data"),
        ("- a\n", "expected keys and values, found list"),
        ("", "expected keys and values, found nothing"),
        ("1: 2\nspectrum: {method: full}\n", "1: no such key"),
    ],
)
def test_what_is_no_configuration(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_run(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_run(tmp_path / "missing.yaml")
