"""The GPU machine's script, rehearsed on the CPU: what it times is the real engine, and a wrong score ends it."""

from __future__ import annotations

import re

import pytest
import torch

from bench.gpu import models, peers, spectra, suite
from bench.gpu.record import Record
from bench.gpu.timing import Build, WrongResultError
from bench.gpu.weights import trained_like
from bench.peers import exact_score


def test_a_rehearsal_scores_every_matrix_of_its_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--rehearse", "--budget", "600"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ", " not in line.partition("]")[0]]
    assert [line.partition(":")[0] for line in lines] == [f"model[{name}]" for name in models.MODELS]
    assert "'matrices': 14, 'scored_alone': 0" in lines[0]
    total = lines[0].partition("'split_seconds': {")[2].partition("}")[0]
    for stage in models.STAGES:
        assert f"'{stage}': " in total
        assert not re.search(f"'{stage}': 0.0(,|$)", total)


def out_of_resources(*_: object, **__: object) -> None:
    """What Triton raises where a kernel wants more shared memory than there is; no RuntimeError."""
    raise pytest.importorskip("triton.runtime.errors").OutOfResources(300000, 232448, "shared memory")


def test_a_kernel_that_fails_takes_no_other_row_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    builds = [Build("first", out_of_resources), Build("second", out_of_resources)]
    monkeypatch.setitem(suite.SECTIONS, "gram", lambda *_: iter(builds))
    assert suite.main(["gram", "--rehearse"]) == 1
    said = capsys.readouterr().out
    assert "FAILED  first: OutOfResources" in said
    assert "FAILED  second: OutOfResources" in said


def test_a_model_that_fails_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(models.MODELS)

    def first_fails(name: str, *arguments: object, **options: object) -> object:
        if name == names[0]:
            out_of_resources()
        return {"name": f"model[{name}]", "median_seconds": 0.0, "info": {}}

    monkeypatch.setattr(models, "run_model", first_fails)
    assert models.main(["--rehearse"]) == 1
    said = capsys.readouterr()
    assert f"model[{names[0]}]: FAILED  OutOfResources" in said.err
    assert [line.partition(":")[0] for line in said.out.splitlines()] == [f"model[{name}]" for name in names[1:]]


def test_a_wrong_score_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = models.compute_spectra
    monkeypatch.setattr(models, "compute_spectra", lambda weights, rule: exact([1.001 * weights[0]], rule))
    with pytest.raises(WrongResultError, match="expected"):
        models.check(models.Matrices(trained_like(1, 210, 260).float()), Record(None))


def test_weights_of_every_shape_have_a_score() -> None:
    """Wide matrices of plain noise have none: the published threshold lies below their smallest value."""
    shapes = {(m, n) for _, m, n in spectra.FIRST + spectra.REST} | {*peers.SHAPES, *peers.MIXTRAL_LAYER}
    shapes |= {shape for _, model, _ in models.MODELS.values() for shape in model}
    torch.manual_seed(5)
    for m, n in sorted(shapes):
        found = exact_score(trained_like(1, max(m // 16, 128), max(n // 16, 128))[0], "gram")
        assert found["n_signal"] > 0, (m, n)
        assert found["n_signal"] < 0.98 * min(max(m // 16, 128), max(n // 16, 128)), (m, n)
