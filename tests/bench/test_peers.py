"""The baselines against numpy and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bench.peers import (
    PEERS,
    exact_score,
    exact_singular_values,
    reference_score,
    score_functional,
    weightwatcher_singular_values,
)

SHAPES = [(1, 1), (1, 7), (7, 1), (33, 33), (20, 90), (90, 20), (65, 64)]


def random_matrix(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_truth_agrees_with_numpy(shape):
    weight = random_matrix(shape)
    s = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    q25, q50, q75 = np.quantile(s, [0.25, 0.5, 0.75], method="linear")
    threshold = (q75 - q25) / 1.349 * (1 + np.sqrt(min(shape) / max(shape)))
    signal, noise = s[s > threshold], s[s <= threshold]
    found = exact_score(weight)
    expected = {"s_max": s.max(), "s_min": s.min(), "q25": q25, "q50": q50, "q75": q75, "threshold": threshold}
    expected |= {"signal_sum": signal.sum(), "noise_sum": noise.sum()}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-12, abs=1e-14), key
    assert (found["n_signal"], found["n_noise"]) == (len(signal), len(noise))
    score = signal.sum() / noise.sum() / s.max() if len(noise) else math.inf
    assert found["snr"] == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_peers_agree_with_the_truth(shape):
    weight = random_matrix(shape)
    exact = exact_singular_values(weight)
    assert torch.allclose(torch.from_numpy(weightwatcher_singular_values(weight)), exact, rtol=1e-12, atol=1e-13)
    assert reference_score(weight) == pytest.approx(exact_score(weight)["snr"], rel=1e-4)
    for name, values in PEERS.items():
        found = values(weight).sort(descending=True).values.double()
        least = 2e-3 if "Gram" in name else 1e-5  # in units of the largest: squares of less are rounding
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=least * float(exact[0]), msg=name)


def test_gram_truth_agrees_with_svd_truth():
    weight = random_matrix((96, 300)).bfloat16()
    by_svd, by_gram = exact_score(weight), exact_score(weight, "gram")
    for key, value in by_svd.items():
        assert by_gram[key] == pytest.approx(value, rel=1e-10), key


def test_functional_by_hand():
    # q25 = 2, q75 = 4: sigma = 2 / 1.349, square matrix: threshold = 4 / 1.349 = 2.965
    found = score_functional(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=torch.float64), (5, 5))
    assert found["threshold"] == pytest.approx(4 / 1.349)
    assert (found["n_signal"], found["n_noise"]) == (3, 2)
    assert found["snr"] == pytest.approx(12 / 3 / 5)


def test_vector_counts_as_one_row_without_noise():
    assert reference_score(torch.ones(64)) == math.inf
    assert exact_score(torch.ones(64))["s_max"] == pytest.approx(8.0)


def test_zero_matrix_scores_zero():
    assert reference_score(torch.zeros(8, 8)) == 0.0
