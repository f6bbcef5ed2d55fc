"""The contract of every operation on every backend: one signature, a leading batch dimension, results near float64's.

Triton's forms run in its interpreter, in a process of their own, or on a GPU where there is one.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure import ops
from spectrum_fast.measure.ops import band, extent, gram, sturm
from spectrum_fast.measure.ops.dispatch import BACKENDS, MODEL, TRITON_OPERATIONS, choose_backend, use_backend

from support.bands import dense, eigenvalues, random_band
from support.interpreter import INTERPRETED, interpreter_problem, outside_the_interpreter

CONTRACT = {
    "extent": {"measure": "weights"},
    "gram": {
        "gram": "weights, *, out_dtype, unrounded",
        "add_gram": "blocks, out, *, unrounded",
        "update_gram": "grams, v, z",
    },
    "product": {"multiply": "weights, x, *, transposed", "multiply_band": "bands, x"},
    "values": {"band_values": "bands, tolerances", "eigenvectors": "bands, shifts, start"},
    "band": {
        "reduce_to_band": "matrices, half_width, carried, vectors",
        "turn_back": "vectors, half_width, x",
    },
    "decode": {"decode": "codes"},
    "sturm": {
        "count_below": "bands, shifts",
        "narrow": "bands, lo, hi, ranks, enough",
        "log_abs_det": "bands, shifts, wanted",
    },
}
"""Operation -> function -> its parameters."""
ON_CPU = [] if INTERPRETED else ["reference", "native", MODEL]
CASES = [pytest.param(backend, "cpu", id=backend) for backend in ON_CPU]
CASES += [
    pytest.param("triton", "cpu", id="triton-interpreter")
    if INTERPRETED
    else pytest.param("triton", "cuda", id="triton-cuda", marks=pytest.mark.gpu)
]
every_backend = pytest.mark.parametrize(("backend", "place"), CASES)
M = 3


@pytest.fixture(autouse=True)
def _needs_a_gpu(request: pytest.FixtureRequest) -> None:
    if "cuda" in request.node.name and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@outside_the_interpreter
@pytest.mark.parametrize("operation", CONTRACT)
def test_one_signature(operation: str) -> None:
    public = importlib.import_module(f"spectrum_fast.measure.ops.{operation}")
    backends = ["reference", "native"] + (["model"] if operation == "band" else [])
    backends += ["triton"] if operation in TRITON_OPERATIONS else []
    modules = [importlib.import_module(f"{public.__name__}.{name}") for name in backends]
    for name, expected in CONTRACT[operation].items():
        wanted = _parameters(getattr(public, name))
        assert ", ".join(wanted) == expected
        for module in modules:
            assert _parameters(getattr(module, name)) == wanted, (module.__name__, name)


@outside_the_interpreter
def test_every_operation_has_a_contract() -> None:
    assert {module.name for module in pkgutil.iter_modules(ops.__path__) if module.ispkg} == set(CONTRACT)


def _parameters(function: object) -> list[str]:
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        found.append(parameter.name)
    return found


def batch_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_backend
@pytest.mark.parametrize("count", [0, 1, M])
def test_extent(count: int, backend: str, place: str) -> None:
    weights = batch_of(count, 7, 19).to(torch.bfloat16)
    with use_backend(backend):
        found = extent.measure(weights.to(place))
    assert found.dtype == torch.float64
    assert found.device.type == place
    wide = weights.double().flatten(1)
    expected = torch.stack([wide.abs().amax(1), wide.square().sum(1)], 1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-13, atol=0)


@every_backend
@pytest.mark.parametrize("shape", [(5, 12), (12, 5)])
@pytest.mark.parametrize("count", [0, 1, M])
def test_gram(count: int, shape: tuple[int, int], backend: str, place: str) -> None:
    weights = batch_of(count, *shape).float()
    wide = weights.double() if shape[0] < shape[1] else weights.double().mT
    with use_backend(backend):
        single = gram.gram(weights.to(place))
        double = gram.gram(weights.double().to(place), out_dtype=torch.float64)
        gram.add_gram(weights.to(place) if shape[0] < shape[1] else weights.to(place).mT, single)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.cpu().double(), 2 * wide @ wide.mT, rtol=0, atol=1e-3)
    torch.testing.assert_close(double.cpu(), wide @ wide.mT, rtol=0, atol=1e-13)


@every_backend
@pytest.mark.parametrize("size", [1, 7, 40, 300])
@pytest.mark.parametrize("count", [0, 1, M])
def test_update_of_a_gram_matrix(count: int, size: int, backend: str, place: str) -> None:
    grams, v, z = batch_of(count, size, size), batch_of(count, size, 5, seed=1), batch_of(count, size, 5, seed=2)
    grams = grams + grams.mT
    with use_backend(backend):
        found = gram.update_gram(grams.clone().to(place), v.to(place), z.to(place)).cpu()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (grams + v @ z.mT + z @ v.mT).float(), rtol=2e-7, atol=1e-14)
    if backend == "native":
        assert torch.equal(found, found.mT)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, M])
def test_band(count: int, dtype: torch.dtype, backend: str, place: str) -> None:
    weights = batch_of(count, 15, 22)
    matrices = (weights @ weights.mT).to(dtype)
    with use_backend(backend):
        bands = band.reduce_to_band(matrices.clone().to(place), 4)
    assert bands.shape == (count, 15, 5)
    assert bands.dtype == dtype
    for found, matrix in zip(bands.cpu(), matrices.double(), strict=True):
        error = eigenvalues(found) - torch.linalg.eigvalsh(matrix)
        assert float(error.abs().max()) <= 20 * torch.finfo(dtype).eps * float(matrix.norm())


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", [3, 5, 6, 15] if INTERPRETED else [3, 5, 6, 15, 47])
def test_band_and_its_householder_vectors(size: int, dtype: torch.dtype, backend: str, place: str) -> None:
    """They turn the matrix into the band: also those of a panel of zeros, and of columns that are dependent."""
    weights = batch_of(M, size, size + 7)
    weights[1, size // 2 :] = 0.0
    weights[2] = weights[2, :1] * torch.linspace(1, 2, size, dtype=torch.float64)[:, None]
    matrices = (weights @ weights.mT).to(dtype)
    left = matrices.clone().to(place)
    with use_backend(backend):
        bands = band.reduce_to_band(left, 4, None, True)
        rows = band.turn_back(left, 4, torch.eye(size, dtype=torch.float64, device=place).expand(M, -1, -1))
    of_each = zip(bands.cpu().double(), left.cpu().double(), rows.cpu(), matrices.double(), strict=True)
    for found, vectors, back, matrix in of_each:
        turned, whole = matrix, torch.eye(size, dtype=torch.float64)
        for column in range(0, max(size - 5, 0), 4):
            begin = column + 4
            v, q = vectors[column:begin, begin:].T, torch.eye(size, dtype=torch.float64)
            for reflector in v.T.flip(0):
                square = float(reflector.square().sum())
                if square:
                    q[begin:] -= torch.outer(reflector, reflector @ q[begin:]) * (2 / square)
            turned, whole = q.T @ turned @ q, whole @ q
        assert float((back.T - whole).abs().max()) <= 1e-13
        assert float((turned - dense(found)).abs().max()) <= 20 * torch.finfo(dtype).eps * float(matrix.norm())


@every_backend
@pytest.mark.parametrize("count", [0, 1, M])
def test_slices(count: int, backend: str, place: str) -> None:
    bands = torch.stack([random_band(9, 3, seed=seed) for seed in range(M)])[:count]
    truths = [torch.linalg.eigvalsh(dense(one)) for one in bands]
    shifts = torch.linspace(-2.03, 3.01, 5, dtype=torch.float64).expand(count, -1) * (1 + torch.arange(count))[:, None]
    z = torch.complex(shifts, torch.full_like(shifts, 0.4))
    wanted = torch.arange(5).expand(count, -1) != torch.arange(count)[:, None]
    with use_backend(backend):
        prepared = sturm.prepare(bands.to(place))
        counts, logs = sturm.count_below(prepared, shifts.to(place)), sturm.log_abs_det(prepared, z.to(place))
        some = sturm.log_abs_det(prepared, torch.where(wanted, z, torch.nan).to(place), wanted.to(place))
        if count < M:
            assert torch.equal(sturm.count_below(bands.to(place), shifts.to(place)), counts)
            assert torch.equal(sturm.log_abs_det(bands.to(place), z.to(place)), logs)
    assert (counts.dtype, logs.dtype, counts.shape) == (torch.int64, torch.float64, shifts.shape)
    torch.testing.assert_close(some, torch.where(wanted.to(place), logs, 0), rtol=0, atol=1e-13)
    for truth, row, x, log, point in zip(truths, counts.cpu(), shifts, logs.cpu(), z, strict=True):
        assert torch.equal(row, (truth < x[:, None]).sum(1))
        expected = (truth - point[:, None]).abs().log().sum(1)
        torch.testing.assert_close(log, expected, rtol=0, atol=1e-11)


@every_backend
def test_numbers_on_the_host_are_checked(backend: str, place: str) -> None:
    """On every backend alike; on a device they would have to be waited for."""
    if place != "cpu":
        pytest.skip("a device is not asked")
    bands, x = random_band(9, 2)[None], torch.zeros(1, 2, dtype=torch.float64)
    z, broken = torch.complex(x, x + 1), bands.clone()
    broken[0, 4, 1] = torch.inf
    with use_backend(backend):
        with pytest.raises(ValueError, match="found NaN"):
            sturm.count_below(bands, x * torch.nan)
        for wrong in (z * torch.nan, z.conj()):
            with pytest.raises(ValueError, match="imaginary part >= 0"):
                sturm.log_abs_det(bands, wrong)
        with pytest.raises(ValueError, match="expected finite entries"):
            sturm.count_below(broken, x)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: extent.measure(torch.zeros(3, 4)), ValueError, "weights: expected shape"),
        (lambda: extent.measure(torch.zeros(1, 3, 4).int()), TypeError, "int32"),
        (lambda: gram.gram(torch.zeros(3, 4)), ValueError, "weights: expected shape"),
        (lambda: gram.add_gram(torch.zeros(2, 3, 4), torch.zeros(1, 3, 3)), ValueError, "out: expected"),
        (lambda: band.reduce_to_band(torch.zeros(3, 3), 1), ValueError, "matrices: expected shape"),
        (lambda: sturm.prepare(torch.zeros(3, 3)), ValueError, "bands: expected shape"),
        (lambda: sturm.count_below(torch.zeros(2, 3, 1), torch.zeros(1, 3).double()), ValueError, "shifts: expected"),
        (
            lambda: sturm.log_abs_det(torch.zeros(1, 3, 1), torch.ones(1, 2).cdouble(), torch.ones(1, 3) > 0),
            ValueError,
            "wanted: expected",
        ),
    ],
)
@outside_the_interpreter
def test_a_single_matrix_is_no_batch(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


def _at_once(call: Callable[[], object]) -> None:
    call()


@outside_the_interpreter
def test_what_cannot_interpret_is_named() -> None:
    assert interpreter_problem("3.7.1", "2.4.6") is None
    assert interpreter_problem("3.6.0", "2.3.5") is None
    assert "needs numpy below 2.4" in str(interpreter_problem("3.6.0", "2.4.0"))


@outside_the_interpreter
def test_the_backend_is_one_value() -> None:
    chosen = partial(choose_backend, "band", "cpu")
    assert chosen() == "native"
    with use_backend("reference"):
        with use_backend("native"):
            assert chosen() == "native"
        assert chosen() == "reference"
        seen: list[str] = []
        for run in (_at_once, copy_context().run):
            thread = threading.Thread(target=run, args=(lambda: seen.append(chosen()),))
            thread.start()
            thread.join()
        assert seen == ["native", "reference"], "a thread begins with auto, unless it is run in the context"
    assert chosen() == "native"
    with pytest.raises(UsageError, match=", ".join(BACKENDS)), use_backend("cublas"):
        pass
    assert chosen() == "native"


@every_backend
@pytest.mark.parametrize("count", [0, 1] if INTERPRETED else [0, 1, M])
def test_narrow(count: int, backend: str, place: str) -> None:
    size, finest = (6, -0.5) if INTERPRETED else (20, -12.0)  # a count takes a second in the interpreter
    plain = [random_band(size, 3, seed=seed) for seed in range(count)]
    bands = torch.stack(plain) if count else torch.zeros(0, size, 4, dtype=torch.float64)
    bands[..., 0] += 20  # of squares
    truths = [(torch.linalg.eigvalsh(dense(one)) + 20).sqrt() for one in plain]
    ranks = torch.tensor([0, size // 4, size // 4 + 1, size - 1])
    lo, hi = torch.zeros(count, 4, dtype=torch.float64), torch.full((count, 4), 9.0, dtype=torch.float64)
    enough = 10.0 ** torch.tensor([finest / 6, finest, finest / 2, finest], dtype=torch.float64).expand(count, -1)
    enough = enough * (1 + torch.arange(count))[:, None]
    with use_backend(backend):
        prepared = sturm.prepare(bands.to(place))
        below, above = sturm.narrow(prepared, lo.to(place), hi.to(place), ranks.to(place), enough.to(place))
        alone = [sturm.narrow(bands[i : i + 1].to(place), *(one[i : i + 1].to(place) for one in (lo, hi)),
                              ranks.to(place), enough[i : i + 1].to(place)) for i in range(count)]  # fmt: skip
    assert not lo.any()
    assert (hi == 9).all()
    assert ((above - below).cpu() <= enough).all()
    for i, (truth, found) in enumerate(zip(truths, alone, strict=True)):
        wanted = truth[ranks]
        assert ((below[i].cpu() <= wanted + 1e-13) & (wanted - 1e-13 <= above[i].cpu())).all()
        assert torch.equal(found[0][0], below[i])
        assert torch.equal(found[1][0], above[i])
