"""All eigenvalues of band matrices against a dense solver."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.ops.values import band_values, eigenvectors, rounding_bound

from support.bands import dense

SHAPES = [
    (1, 0),
    (2, 1),
    (9, 0),
    (5, 3),
    (7, 6),
    (40, 16),
    (130, 32),
    (200, 20),
    (257, 48),
    (150, 64),
    (90, 63),
    (90, 80),
]


def random_bands(n: int, half_width: int, seed: int = 0) -> torch.Tensor:
    """Two of them; what lies past the end is NaN."""
    bands = torch.randn(2, n, half_width + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for offset in range(1, half_width + 1):
        bands[:, n - offset :, offset] = torch.nan
    return bands


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("n", "half_width"), SHAPES)
def test_they_are_those_of_the_dense_matrix(n: int, half_width: int, backend: str) -> None:
    bands = random_bands(n, half_width)
    clean = bands.nan_to_num()
    with use_backend(backend):
        found = band_values(bands, torch.tensor([0.0, 1e-3], dtype=torch.float64))
    for one, values, tolerance in zip(clean, found, (0.0, 1e-3), strict=True):
        expected = torch.linalg.eigvalsh(dense(one))
        assert bool((torch.diff(values) >= 0).all())
        error = (values - expected).abs().max()
        assert error <= 0.5 * tolerance + 1e-13 * expected.abs().max()
        assert error <= 0.5 * tolerance + rounding_bound(one[None])[0]


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_any_scale_and_zeros(scale: float) -> None:
    band = random_bands(100, 16)[:1].nan_to_num()
    none = torch.zeros(1, dtype=torch.float64)
    plain = band_values(band, none)
    assert torch.allclose(band_values(band * scale, none) / scale, plain, rtol=0, atol=1e-13 * float(plain.abs().max()))
    band[:, 40:, 1:] = 0.0  # falls apart
    assert torch.allclose(band_values(band, none)[0], torch.linalg.eigvalsh(dense(band[0])), rtol=0, atol=1e-13)
    assert not band_values(torch.zeros_like(band), none).abs().max() > 1e-290


def test_the_bits_do_not_depend_on_threads() -> None:
    band, some, before = random_bands(300, 32), torch.full((2,), 1e-9, dtype=torch.float64), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(band_values(band, some))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("n", "half_width"), [shape for shape in SHAPES if shape[1] > 0])
def test_eigenvectors_near_shifts(n: int, half_width: int, backend: str) -> None:
    """They are eigenvectors of their matrix, of the values nearest to the shifts."""
    bands = random_bands(n, half_width, seed=3)
    clean = bands.nan_to_num()
    exact = torch.stack([torch.linalg.eigvalsh(dense(one)) for one in clean])
    wanted = exact[:, :: max(n // 9, 1)]
    start = torch.randn(n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with use_backend(backend):
        found = eigenvectors(bands, wanted * (1 + 1e-9) + 1e-9, start)
        alone = eigenvectors(bands[1:], wanted[1:, :1] * (1 + 1e-9) + 1e-9, start)
    assert found.shape == (2, wanted.shape[1], n)
    assert torch.equal(found[1:, :1], alone) or backend == "reference"
    torch.testing.assert_close(found.norm(dim=2), torch.ones_like(wanted), rtol=0, atol=1e-13)
    for one, values, vectors in zip(clean, wanted, found, strict=True):
        residuals = vectors @ dense(one) - values[:, None] * vectors
        assert float(residuals.norm(dim=1).max()) <= 1e-7 * float(exact.abs().max())


def test_what_is_no_band_is_refused() -> None:
    with pytest.raises(TypeError, match=r"bands: expected torch\.float64"):
        band_values(torch.zeros(1, 3, 2), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"bands \(m, n, b \+ 1\)"):
        band_values(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
