"""Checkpoints in the making, complete, damaged and retired; what a run goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spectrum_fast.errors import CheckpointError, RankError
from spectrum_fast.use.training.run import lost_processes_explained
from spectrum_fast.use.training.saving import (
    STAGING_NAME,
    checkpoint_to_resume,
    checkpoints,
    find_damage,
    finish,
    last_whole,
    move_into,
    tidy,
)


def write(folder: Path, content: bytes = b"weights") -> Path:
    """A checkpoint as a trainer writes it, with a folder of DeepSpeed's in it."""
    (folder / "global_step").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "global_step" / "states.pt").write_bytes(b"states")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": int(folder.name.rpartition("-")[2])}))
    return folder


def saved(home: Path, step: int, content: bytes = b"weights") -> Path:
    return finish(write(home / STAGING_NAME / f"checkpoint-{step}", content), home)


def names(home: Path) -> list[str]:
    return [path.name for path in checkpoints(home)]


def test_a_finished_checkpoint_lists_its_files(tmp_path: Path) -> None:
    folder = saved(tmp_path, 2)
    assert folder == tmp_path / "checkpoint-2"
    assert json.loads((folder / "files.json").read_text())["files"] == {
        "global_step/states.pt": 6,
        "model.safetensors": 7,
        "trainer_state.json": 18,
    }
    assert find_damage(folder) == ""


def test_one_of_the_same_name_makes_room(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    saved(tmp_path, 2, b"other weights")
    assert (tmp_path / "checkpoint-2" / "model.safetensors").read_bytes() == b"other weights"
    assert names(tmp_path) == ["checkpoint-2"]
    assert not (tmp_path / STAGING_NAME).exists()


def test_a_file_that_cannot_be_flushed_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"checkpoint-4: the checkpoint cannot be saved: No space left .*resume"):
        saved(tmp_path, 4)
    assert names(tmp_path) == ["checkpoint-2"]


DAMAGES = {
    "cut": (
        lambda folder: os.truncate(folder / "model.safetensors", 3),
        "model.safetensors: expected 7 bytes, found 3",
    ),
    "gone": (lambda folder: (folder / "global_step" / "states.pt").unlink(), "global_step/states.pt is missing"),
    "list cut": (lambda folder: os.truncate(folder / "files.json", 9), "what it says about itself cannot be read"),
    "neither list nor state": (
        lambda folder: [(folder / name).unlink() for name in ("files.json", "trainer_state.json")],
        "trainer_state.json, which is written last, is missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_passed_over(tmp_path: Path, damage: str) -> None:
    do, message = DAMAGES[damage]
    saved(tmp_path, 2)
    saved(tmp_path, 10)
    do(tmp_path / "checkpoint-10")
    assert message in find_damage(tmp_path / "checkpoint-10")
    found, words = last_whole(tmp_path)
    assert found == tmp_path / "checkpoint-2"
    assert len(words) == 1
    assert words[0].startswith(f"{tmp_path / 'checkpoint-10'} is passed over: {message}")


def test_a_checkpoint_of_another_program_needs_its_state(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint-3")
    assert find_damage(folder) == ""
    (folder / "trainer_state.json").write_text('{"epoch"')
    assert "cannot be read" in find_damage(folder)
    assert last_whole(tmp_path)[0] is None


def test_tidying_keeps_what_was_complete_and_deletes_halves(tmp_path: Path) -> None:
    staging = tmp_path / STAGING_NAME
    write(staging / "checkpoint-4")
    finish(write(staging / "checkpoint-6"), tmp_path)
    staging.mkdir(exist_ok=True)
    os.rename(tmp_path / "checkpoint-6", staging / "checkpoint-6")  # as if it had been killed before the rename
    (staging / "model").mkdir()
    assert tidy(tmp_path) == [tmp_path / "checkpoint-6"]
    assert names(tmp_path) == ["checkpoint-6"]
    assert not staging.exists()
    assert tidy(tmp_path / "nothing") == []


def test_a_model_moves_file_by_file(tmp_path: Path) -> None:
    staged = write(tmp_path / STAGING_NAME / "model-1")
    (tmp_path / "model.safetensors").write_bytes(b"older")
    (tmp_path / "global_step").mkdir()
    (tmp_path / "global_step" / "old").touch()
    move_into(staged, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "global_step").iterdir()] == ["states.pt"]
    assert not (tmp_path / STAGING_NAME).exists()


def test_what_a_run_goes_on_from(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from spectrum_fast.use.training.arguments import parse_run

    said: list[str] = []

    def resume(value: object) -> str | None:
        document = {
            "model_name_or_path": "some/model",
            "dataset_name": "some/data",
            "output_dir": str(tmp_path),
            "spectrum": {"method": "full"},
            "resume_from_checkpoint": value,
        }
        return checkpoint_to_resume(parse_run(document, "run.yaml"), said.append)

    assert resume(False) is None
    with pytest.raises(
        CheckpointError, match=r"run\.yaml: resume_from_checkpoint: expected a whole .*found none; drop"
    ):
        resume(True)
    saved(tmp_path, 4)
    os.truncate(tmp_path / "checkpoint-4" / "model.safetensors", 0)
    with pytest.raises(CheckpointError, match=r"found none; .*checkpoint-4 is passed over: .*drop the key"):
        resume(True)
    saved(tmp_path, 2)
    said.clear()
    assert resume(True) == resume("true") == str(tmp_path / "checkpoint-2")
    assert said[0].startswith("warning: ")
    assert "checkpoint-4 is passed over: model.safetensors: expected 7 bytes, found 0" in said[0]
    assert resume(str(tmp_path / "checkpoint-2")) == str(tmp_path / "checkpoint-2")
    with pytest.raises(CheckpointError, match=r"expected a whole checkpoint, found .*checkpoint-4, where model"):
        resume(str(tmp_path / "checkpoint-4"))
    with pytest.raises(CheckpointError, match=r"found .*checkpoint-8, where trainer_state\.json, .* is missing"):
        resume(str(tmp_path / "checkpoint-8"))


def test_a_lost_process_is_named_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    lost = "[../third_party/gloo/pair.cc:525] Connection closed by peer [127.0.0.1]:1234"
    none_yet = r"another process of this run has ended.*no checkpoint yet"
    with pytest.raises(RankError, match=none_yet), lost_processes_explained(tmp_path):
        raise RuntimeError(lost)
    saved(tmp_path, 4)
    one = r"last whole checkpoint is .*checkpoint-4; go on from it with --set resume"
    with pytest.raises(RankError, match=one), lost_processes_explained(tmp_path):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="shapes"), lost_processes_explained(tmp_path):
        raise RuntimeError("shapes do not match")
