"""A scan never dies of one tensor: whatever goes wrong with it is its failure, and the others are scored."""

from __future__ import annotations

import copy
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.stream import weights as streaming
from spectrum_fast.scanning import plan as planning
from spectrum_fast.scanning import results, scorers

from support.long_scans import command, end, environment, journal_of
from support.processes import script

VICTIM = "model.layers.1.mlp.up_proj"
FEW = ("model.layers.1.mlp.*",)
ERRORS = (
    ZeroDivisionError("float division by zero"),
    OverflowError("int too large to convert to float"),
    RuntimeError("shape is invalid\nC++ CapturedTraceback:\n#4 std::function" + "x" * 10_000),
    RecursionError(),
    KeyError("absmax"),
)


def fail_at(stage: str, error: Exception) -> tuple[object, str, Callable]:
    """Where the stage is done, and the same with an error for the victim alone."""
    target, name, parameter_of = {
        "plan": (planning, "plan_plain", lambda ref: ref.name),
        "read": (streaming.Batch, "tensor", lambda _, ref, *__: ref.name),
        "decode": (scorers, "decode_weight", lambda plan, *_: plan.parameter),
        "score": (results, "score_weight", lambda plan, *_: plan.parameter),
    }[stage]
    real = getattr(target, name)

    def fails(*arguments: object) -> object:
        if parameter_of(*arguments) == f"{VICTIM}.weight":
            fresh = copy.copy(error)  # one that is raised keeps alive all that its frames held
            raise fresh
        return real(*arguments)

    return target, name, fails


@pytest.fixture(scope="module")
def expected(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("expected") / "scan.json"
    sf.scan(llama, out=out, include=FEW)
    return out.read_bytes()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stage", ["plan", "read", "decode", "score"])
def test_an_unforeseen_error_is_a_failure_of_its_tensor(
    llama: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    out = tmp_path / "scan.json"
    with monkeypatch.context() as patch:
        patch.setattr(*fail_at(stage, error))
        scan = sf.scan(llama, out=out, include=FEW)
    (failure,) = scan.failures
    assert (failure.name, failure.kind, failure.dtype) == (VICTIM, "error", "BF16")
    assert type(error).__name__ in failure.message
    assert "please report it" in failure.message
    assert "\n" not in failure.message
    assert len(failure.message) < 600
    assert (
        {module.name for module in scan.modules}
        == {module.name for module in sf.load_scan(out).modules}
        == {module.name for module in scan_of(expected, tmp_path).modules} - {VICTIM}
    )
    assert "Traceback" not in out.read_text()
    if stage == "plan":
        return
    # The journal stays, with the traceback; the module is tried again.
    assert f"in fails\\n    raise fresh\\n{type(error).__name__}" in journal_of(out).read_text()
    again = sf.scan(llama, out=out, include=FEW)
    assert again.run["resumed_modules"] == len(scan.modules)
    assert out.read_bytes() == expected
    assert not journal_of(out).exists()


def scan_of(content: bytes, folder: Path) -> sf.Scan:
    path = folder / "expected.json"
    path.write_bytes(content)
    return sf.load_scan(path)


@pytest.mark.parametrize("stage", ["read", "decode", "score"])
def test_no_memory_for_one_tensor_is_its_failure_and_is_tried_again(
    llama: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    out = tmp_path / "scan.json"
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")):
        with monkeypatch.context() as patch:
            patch.setattr(*fail_at(stage, error))
            (failure,) = sf.scan(llama, out=out, include=FEW).failures
        assert (failure.name, failure.kind) == (VICTIM, "memory")
        assert "free some" in failure.message
    assert sf.scan(llama, out=out, include=FEW).complete
    assert out.read_bytes() == expected


@pytest.mark.parametrize("stage", ["plan", "read", "decode", "score"])
@pytest.mark.parametrize("error", [CheckpointError("the file is gone"), OSError(5, "Input/output error")], ids=str)
def test_errors_of_the_whole_end_the_scan(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    monkeypatch.setattr(*fail_at(stage, error))
    with pytest.raises(type(error), match=r"file is gone|Input"):
        sf.scan(llama, out=tmp_path / "scan.json", include=FEW)


def test_a_journal_that_ended_with_problems_makes_way_for_another_scan(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scan.json"
    with monkeypatch.context() as patch:
        patch.setattr(*fail_at("score", ZeroDivisionError("x")))
        sf.scan(llama, out=out, include=FEW)
    scan = sf.scan(llama, out=out, include=FEW, method="svd")
    assert scan.complete
    assert scan.run["resumed_modules"] == 0
    assert not journal_of(out).exists()


def test_a_torn_weight_in_a_live_model_is_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(8, 8), "b": torch.nn.Linear(8, 8)})
    real = results.score_weight

    def fails(plan: object, *more: object) -> object:
        if plan.parameter == "a.weight":  # type: ignore[attr-defined]
            raise ZeroDivisionError
        return real(plan, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(results, "score_weight", fails)
    scan = sf.scan(model)
    assert [failure.name for failure in scan.failures] == ["a"]
    assert "in fails" in scan.failures[0].traceback
    assert [module.name for module in scan.modules] == ["b"]


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_by_processes_it_is_exit_code_1_and_all_others_are_in_the_file(
    deep: Path, uninterrupted: bytes, tmp_path: Path, count: int
) -> None:
    out = tmp_path / "scan.json"
    processes = [
        subprocess.Popen(
            [sys.executable, script("command_that_fails_at"), f"{VICTIM}.weight", *command(deep, out, "--quiet")[3:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(RANK=str(rank), WORLD_SIZE=str(count)),
        )
        for rank in range(count)
    ]
    returned, stdout, stderr = end(processes[0])
    assert (returned, stdout) == (1, "")
    assert stderr.startswith(f"failed: {VICTIM}.weight in model.safetensors: ZeroDivisionError: division by zero")
    assert len(stderr.splitlines()) == 1
    for process in processes[1:]:
        assert end(process) == (0, "", "")
    found, whole = sf.load_scan(out), scan_of(uninterrupted, tmp_path)
    assert [module for module in whole.modules if module.name != VICTIM] == list(found.modules)
    (kept,) = (path for path in tmp_path.iterdir() if path.suffix == ".journal" or ".part-" in path.name)
    (problem,) = [line for line in kept.read_bytes().splitlines() if b'{"problem":' in line]
    checksum, _, content = problem.partition(b" ")
    assert checksum == b"%08x" % zlib.crc32(content)
    assert b"ZeroDivisionError" in content.partition(b'"traceback"')[2]


def test_a_scan_of_failures_alone_is_one(tmp_path: Path) -> None:
    save_file({"layers.0.q.weight": torch.full((30, 40), torch.nan)}, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path)
    assert (len(scan.modules), [failure.kind for failure in scan.failures]) == (0, ["values"])
