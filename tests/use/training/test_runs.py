"""Whole runs in this process: what is scanned again, what is refused in one line, other trainers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import SelectionError, SpectrumFastError, UsageError

from support.launching import launch, needs, zero

pytest.importorskip("trl")

from spectrum_fast.use.training.arguments import parse_run
from spectrum_fast.use.training.run import train


@pytest.fixture
def run(configure: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Train and give what was said."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))

    def call(method: str = "spectrum", *, overwrite: bool = True, **changes: Any) -> list[str]:
        said: list[str] = []
        config = configure(
            "llama", method, tmp_path, processes=1, name="run", steps=1, **{"report_to": "none", **changes}
        )
        train(parse_run(config["config"], "run.yaml"), overwrite=overwrite, say=said.append)
        return said

    return call


@pytest.fixture
def model(shop: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shop / "llama", tmp_path / "model"))


def scramble(model: Path) -> None:
    """Other values under the same names, shapes and sizes."""
    path = model / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(value.shape, generator=generator) * 0.02 if value.dim() > 1 else value
        for name, value in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_kept_scan_is_used_again_only_for_the_weights_it_is_of(
    run: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    again: dict[str, Any] = {"model_name_or_path": str(model)}
    assert any("scanning" in line for line in run(**again))
    kept = tmp_path / "run" / "scan.json"
    first = kept.read_bytes()
    assert not any("scanning" in line for line in run(**again))
    assert kept.read_bytes() == first
    scramble(model)
    said = run(**again)
    assert any("is of other weights" in line for line in said)
    assert [m.snr for m in load_scan(kept).modules] != [m.snr for m in _scan(first, tmp_path).modules]
    assert any("scanning" in line for line in run(**again, spectrum={"criterion": "mp"}))


def _scan(content: bytes, folder: Path) -> Any:
    (folder / "before.json").write_bytes(content)
    return load_scan(folder / "before.json")


def test_an_interrupted_scan_goes_on_and_one_of_other_weights_does_not_stop_the_run(
    run: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    from spectrum_fast.scanning.run import scan

    home = tmp_path / "run"
    home.mkdir()

    def strike(progress: Any) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(model, top_percent=50, out=home / "scan.json", progress=strike)
    (journal,) = home.glob(".*journal*")
    scramble(model)
    run(model_name_or_path=str(model))
    assert not journal.exists()
    run(model_name_or_path=str(model))


def test_a_scan_of_another_model_is_refused(run: Callable[..., list[str]], shop: Path, tmp_path: Path) -> None:
    from spectrum_fast.scanning.run import scan

    scan(shop / "gpt-neox").save(tmp_path / "other.json")
    with pytest.raises(
        SelectionError, match=r"other\.json: expected a scan of .*llama, found one of other weights.*neox"
    ):
        run(spectrum={"scan": str(tmp_path / "other.json")})
    assert not (tmp_path / "run" / "run.json").exists()


def test_what_the_libraries_refuse_is_one_line(
    run: Callable[..., list[str]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sees a dog"}]
    talk = tmp_path / "talk.jsonl"
    talk.write_text((json.dumps({"messages": turns}) + "\n") * 4)
    with pytest.raises(UsageError, match=r"^run\.yaml: .*chat.template"):
        run("full", dataset_name=str(talk))
    template = model / "chat_template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    with pytest.raises(UsageError, match=r"^run\.yaml: .*generation"):
        run("full", model_name_or_path=str(model), dataset_name=str(talk), assistant_only_loss=True)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    with pytest.raises(UsageError, match=r"^run\.yaml: .*tensorboard"):
        run("full", report_to="tensorboard")
    with pytest.raises(UsageError, match=r"^run\.yaml: .*nothing-here.*"):
        run("full", model_name_or_path=str(tmp_path / "nothing-here"))
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match=r"^run\.yaml: "):
        run("full", model_name_or_path=str(model))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"fsdp": True}, "fsdp: expected 2 or"), ({"deepspeed": zero(3)}, "deepspeed: expected 1 or")],
)
def test_a_divided_model_wants_a_launcher(
    run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=rf"^run\.yaml: {message} more processes of a launcher.*torchrun"):
        run(**given)


def test_preferences_are_trained_by_the_same_words(run: Callable[..., list[str]], shop: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "the cat", "chosen": " sees a dog", "rejected": " a a a"}
    pairs.write_text((json.dumps(row) + "\n") * 4)
    run(dataset_name=str(pairs), beta=0.2, spectrum={"trainer": "dpo"})
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "rewards/margins" in record["history"][0]
    before, after = (load_file(folder / "model.safetensors") for folder in (shop / "llama", tmp_path / "run"))
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(load_selection(tmp_path / "run" / "selection.json").names)


@pytest.mark.slow
def test_one_process_scans_and_a_failure_of_it_is_everyones(
    configure: Callable[..., Any], shop: Path, tmp_path: Path
) -> None:
    needs("trl", "deepspeed")
    good = configure("llama", "spectrum", tmp_path, processes=2, name="good", deepspeed=None)
    bad = configure(
        "llama", "spectrum", tmp_path, processes=2, name="bad", deepspeed=None, spectrum={"exclude": ["nothing"]}
    )
    outcomes = launch([good, {**bad, "may_fail": True}], tmp_path, shop / "cache", processes=2)
    assert outcomes["good"].facts["scans"] == [1, 0]
    assert outcomes["good"].run["processes"] == 2
    assert "nothing" in outcomes["bad"].facts["error"]


def test_every_error_is_ours(run: Callable[..., list[str]]) -> None:
    with pytest.raises(SpectrumFastError):
        run(dataset_name="no-such-file.jsonl")


def test_a_criterion_that_follows_from_any_scan_ranks_by_it(run: Callable[..., list[str]], tmp_path: Path) -> None:
    run(spectrum={"criterion": "stable-rank"})
    assert load_scan(tmp_path / "run" / "scan.json").criterion == "spectrum"
    chosen = load_selection(tmp_path / "run" / "selection.json")
    assert chosen.criterion == "stable-rank"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["selection"]["criterion"] == "stable-rank"
