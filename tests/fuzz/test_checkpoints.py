"""A few hundred mutated checkpoints are scanned on every run, and the oracle itself sees what it should."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError
from spectrum_fast.scanning import scorers

from fuzz.checkpoints import FORMATS, judge, make, run

MUTANTS = 300


def test_mutants_end_well_with_failures_or_with_one_error() -> None:
    codes = set()
    for number in range(MUTANTS):
        code, problem = run(0, number)
        assert not problem, f"python tests/fuzz/checkpoints.py --only 0:{number}\n{problem}"
        codes.add(code)
    assert codes == {0, 1, 2}


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.__name__)
def test_every_format_scores_before_it_is_mutated(kind, tmp_path: Path) -> None:
    for seed in range(8):
        made = kind(random.Random(seed))  # noqa: S311
        folder = tmp_path / str(seed)
        folder.mkdir()
        code, problem = judge(made, folder)
        assert not problem
        if code == 0:
            return
    pytest.fail("none of eight was scored")


def test_a_mutant_follows_from_its_seed_and_number() -> None:
    one, other = make(3, 17), make(3, 17)
    assert (one.tensors, one.config, one.index) == (other.tensors, other.config, other.index)
    assert any(make(3, number).tensors != one.tensors for number in range(3))


def test_the_oracle_sees_faults_lost_memory_and_lost_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        return judge(FORMATS[0](random.Random(1)), folder)[1]  # noqa: S311

    real = scorers.decode_weight

    def broken(*_: object) -> torch.Tensor:
        raise ZeroDivisionError

    def hungry(*arguments: object) -> torch.Tensor:
        assert torch.ones(100 << 20).sum() > 0
        return real(*arguments)  # type: ignore[arg-type]

    assert judged("as it is") == ""
    for name, fault, expected in (("broken", broken, "ZeroDivisionError"), ("hungry", hungry, "memory grew by")):
        with monkeypatch.context() as patch:
            patch.setattr(scorers, "decode_weight", fault)
            assert expected in judged(name)
    monkeypatch.setattr(sf.Scan, "__eq__", lambda *_: False)
    assert judged("lost") == "the file does not say what was found"


@pytest.mark.parametrize("name", ["", ".weight"])
def test_a_tensor_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    """It was skipped, and the scan file written then could not be read."""
    save_file({name: torch.ones(3), "a.weight": torch.ones(4, 4)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="expected a name for every tensor"):
        sf.scan(tmp_path)
