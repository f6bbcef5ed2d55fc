"""Truncated decompositions held to the float64 SVD, their errors to the true ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.spectra.lowrank import LowRankSvd
from spectrum_fast.measure.spectra.lowrank.basis import krylov_basis, orthonormalise
from spectrum_fast.measure.spectra.lowrank.residual import spectral_bound

from support import matrices

SPECTRA = {
    "slow decay": np.arange(1, 301) ** -0.3,
    "fast decay": np.arange(1, 301) ** -3.0,
    "geometric": np.geomspace(1, 1e-9, 300),
    "cluster at the cut": np.r_[np.full(60, 1.0), np.full(240, 0.98)],
    "all equal": np.ones(300),
    "one outlier": np.r_[1000.0, np.linspace(1, 0.5, 299)],
    "rank 5": np.arange(5, 0, -1.0),
    "noise": np.linalg.svd(np.random.default_rng(0).standard_normal((300, 500)), compute_uv=False),
}


def check(
    found: LowRankSvd, weight: torch.Tensor, rank: int, eps: float, truth: torch.Tensor | None = None
) -> torch.Tensor:
    """Everything that a result says of itself, against the truth; gives the true values.

    In float64 the truth is the spectrum that the matrix was built from: LAPACK's own values are off by up to 60 eps on
    some processors.
    """
    truth = torch.linalg.svdvals(weight.double()) if truth is None else truth
    k = found.rank
    assert k == min(rank, *weight.shape)
    assert found.u is not None
    assert found.vh is not None
    for basis in (found.u.double(), found.vh.double().mT):
        assert (basis.mT @ basis - torch.eye(k)).abs().max() < 100 * eps
    slack = 30 * eps * float(truth[0])
    assert (found.s[:-1] >= found.s[1:]).all()
    assert (found.s <= truth[:k] + slack).all()
    residual = weight.double() - found.matrix(torch.float64)
    frobenius, spectral = float(residual.norm()), float(torch.linalg.matrix_norm(residual, 2))
    floor = 30 * eps * found.norm
    assert found.norm == pytest.approx(float(weight.double().norm()), rel=1e-6)
    assert found.frobenius_error == pytest.approx(frobenius, rel=2e-3, abs=floor)
    assert spectral <= found.spectral_bound
    assert found.spectral_bound <= 3.2 * spectral + floor
    assert found.relative_error == found.frobenius_error / found.norm
    return truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_prescribed_spectra(spectrum, shape, dtype):
    weight = matrices.with_singular_values(SPECTRA[spectrum], *shape).to(dtype)
    found = sf.svd_lowrank(weight, 40)
    values = torch.zeros(300, dtype=torch.float64)
    values[: len(SPECTRA[spectrum])] = torch.from_numpy(np.sort(SPECTRA[spectrum])[::-1].copy())
    truth = check(found, weight, 40, torch.finfo(dtype).eps, values if dtype == torch.float64 else None)
    assert found.method == "krylov"
    best = float(truth[40:].norm())  # and an eps of the norm for each of the forty
    assert found.frobenius_error <= 1.002 * best + 40 * torch.finfo(dtype).eps * found.norm
    assert ((truth[:40] - found.s).abs() <= 0.02 * truth[:40] + 30 * torch.finfo(dtype).eps * truth[0]).all()


def test_a_trained_matrix_and_what_iterations_buy():
    weight = matrices.trained_like(600, 900, outliers=(40.0,)).to(torch.bfloat16)
    truth = torch.linalg.svdvals(weight.double())
    errors = [float((1 - sf.svd_lowrank(weight, 48, n_iter=n, vectors=False).s / truth[:48]).max()) for n in (0, 2, 4)]
    assert errors[0] > 0.1
    assert errors[1] < 0.05
    assert errors[2] < 0.005
    found = sf.svd_lowrank(weight, 48)
    assert int((truth > 1.05).sum()) == 9  # above the bulk
    assert (1 - found.s[:9] / truth[:9]).abs().max() < 1e-5
    check(found, weight, 48, torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(("rows", "columns", "rank"), [(1, 9, 3), (20, 30, 64), (40, 64, 20), (3, 3, 3)])
def test_small_matrices_and_ranks_above_the_smaller_side(rows, columns, rank):
    weight = matrices.gaussian(rows, columns)
    found = sf.svd_lowrank(weight, rank)
    truth = check(found, weight, rank, torch.finfo(torch.float64).eps)
    assert torch.allclose(found.s, truth[: found.rank], rtol=1e-12)
    assert found.method == "svd"


@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (4, 5)])
def test_zero_matrices(shape):
    found = sf.svd_lowrank(torch.zeros(shape), 4)
    assert found.s.tolist() == [0.0] * 4
    assert (found.norm, found.frobenius_error, found.spectral_bound, found.relative_error) == (0.0, 0.0, 0.0, 0.0)
    assert found.matrix().shape == shape
    assert not found.matrix().any()
    assert sf.svd_lowrank(torch.zeros(shape), 4, tolerance=0.1).rank == 1


def test_a_batch_of_unequal_conditioning_gives_what_each_matrix_gives_alone():
    stack = [matrices.with_singular_values(values[:150], 150, 200) for values in SPECTRA.values()]
    stack += [torch.zeros(150, 200, dtype=torch.float64), 1e-200 * stack[0], 1e200 * stack[1]]
    together = sf.svd_lowrank(torch.stack(stack), 12)
    assert isinstance(together, list)
    for weight, found in zip(stack, together, strict=True):
        scale = float(weight.abs().max()) or 1.0
        alone = sf.svd_lowrank(weight, 12)
        assert torch.allclose(found.s / scale, alone.s / scale, rtol=1e-9, atol=1e-12)
        assert torch.isfinite(found.matrix()).all()
        assert found.frobenius_error == pytest.approx(alone.frobenius_error, rel=1e-6, abs=1e-12 * found.norm)


def test_a_sequence_of_mixed_shapes_keeps_its_order():
    weights = [matrices.gaussian(90 + 10 * (i % 3), 200, seed=i).to(torch.float32) for i in range(7)]
    weights.append(weights[0].to(torch.float64))
    for weight, found in zip(weights, sf.svd_lowrank(weights, 8), strict=True):
        check(found, weight, 8, 1e-7)
        assert found.u.dtype == weight.dtype
    assert sf.svd_lowrank([], 3) == []


@pytest.mark.parametrize("tolerance", [0.9, 0.5, 0.1, 0.01])
def test_the_rank_adapts_to_the_tolerance(tolerance):
    weight = matrices.with_singular_values(np.arange(1, 201) ** -1.0, 200, 260).to(torch.float32)
    truth = torch.linalg.svdvals(weight.double())
    left = (truth.square().flip(0).cumsum(0).flip(0) / truth.square().sum()).sqrt()
    needed = int((left[1:] <= tolerance).int().argmax()) + 1 if (left[1:] <= tolerance).any() else 200
    found = sf.svd_lowrank(weight, 200, tolerance=tolerance)
    assert found.relative_error <= tolerance * (1 + 1e-3)
    assert needed <= found.rank <= needed + 1
    check(found, weight, found.rank, 1e-7)


def test_a_tolerance_that_the_rank_does_not_reach_is_seen_in_the_error():
    weights = [matrices.gaussian(300, 300), matrices.with_singular_values(np.ones(3), 300, 300)]
    wide, narrow = sf.svd_lowrank(weights, 50, tolerance=0.05)
    assert (wide.rank, narrow.rank) == (50, 3)
    assert wide.relative_error > 0.5
    assert narrow.relative_error < 1e-9


def test_equal_input_gives_equal_output_and_leaves_it_alone():
    weight = matrices.gaussian(200, 300).to(torch.bfloat16)
    copy = weight.clone()
    torch.manual_seed(1)
    first = sf.svd_lowrank(weight, 10)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = sf.svd_lowrank(weight, 10)
    assert torch.equal(first.u, second.u)
    assert torch.equal(weight, copy)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_vectors():
    weight = matrices.gaussian(200, 300)
    bare, full = sf.svd_lowrank(weight, 10, vectors=False), sf.svd_lowrank(weight, 10)
    assert (bare.u, bare.vh) == (None, None)
    assert torch.equal(bare.s, full.s)
    assert bare.frobenius_error == full.frobenius_error
    with pytest.raises(UsageError, match="vectors=True"):
        bare.matrix()


def test_work_on_a_parameter_in_training_builds_no_graph():
    weight = torch.nn.Parameter(matrices.gaussian(200, 300))
    found = sf.svd_lowrank(weight, 10)
    assert not found.u.requires_grad
    assert not found.matrix().requires_grad


@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        (torch.ones(4, 4), {"rank": 0}, UsageError, "rank: expected a whole number of at least 1, found 0"),
        (torch.ones(4, 4), {"rank": 2, "n_iter": -1}, UsageError, "n_iter"),
        (torch.ones(4, 4), {"rank": 2, "tolerance": 1.0}, UsageError, "tolerance"),
        ([torch.ones(4, 4), torch.ones(4)], {"rank": 2}, TensorError, "tensor 1: expected a matrix"),
        ([torch.ones(4, 4), torch.ones(4, 4, dtype=torch.int8)], {"rank": 2}, UnsupportedDtypeError, "tensor 1"),
        (torch.tensor([[1.0, torch.nan]]), {"rank": 1}, TensorError, "tensor 0: holds NaN or infinity"),
        ([[1.0]], {"rank": 1}, TensorError, "tensor 0: expected a matrix .* found list"),
    ],
)
def test_bad_input(tensors, options, error, message):
    with pytest.raises(error, match=message):
        sf.svd_lowrank(tensors, **options)


def test_cholesky_falls_back_for_dependent_columns_only():
    good = matrices.gaussian(50, 6)
    dependent = good.clone()
    dependent[:, 3] = dependent[:, 1] + 1e-13 * dependent[:, 3]
    zero = torch.zeros_like(good)
    for found, source in zip(
        orthonormalise(torch.stack([good, dependent, zero])), (good, dependent, zero), strict=True
    ):
        assert (found.T @ found - torch.eye(6)).abs().max() < 1e-12
        assert (found @ (found.T @ source) - source).abs().max() < 1e-12


def test_a_krylov_space_that_the_matrix_exhausts_stays_orthonormal():
    weight = matrices.with_singular_values(np.ones(3), 40, 60)[None]
    basis = krylov_basis(weight, matrices.gaussian(60, 8)[None], passes=4, depth=5)[0]
    assert basis.shape == (40, 40)
    assert (basis.T @ basis - torch.eye(40)).abs().max() < 1e-12


def test_the_spectral_bound_holds_for_many_matrices():
    """Two hundred residuals of all kinds at once; the stated chance of one failure among them is 2e-8."""
    rng = np.random.default_rng(7)
    spectra = [np.sort(rng.pareto(rng.uniform(0.3, 5), 60))[::-1].copy() for _ in range(200)]
    stack = torch.stack([matrices.with_singular_values(v, 60, 80, seed=i) for i, v in enumerate(spectra)])
    none = torch.zeros(200, 60, 1, dtype=torch.float64), torch.zeros(200, 1, dtype=torch.float64)
    bound = spectral_bound(stack, *none, torch.zeros(200, 1, 80, dtype=torch.float64))
    ratio = bound / torch.tensor([v[0] for v in spectra])
    assert ratio.min() >= 1
    assert ratio.max() < 3
