"""Products with vectors against extended precision, on every backend.

Triton's form runs in its interpreter (``test_in_the_interpreter.py``), or on a GPU where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectrum_fast.measure.ops import product
from spectrum_fast.measure.ops.dispatch import WEIGHT_DTYPES, use_backend

from support.interpreter import INTERPRETED, WITH_GPU, on_both, outside_the_interpreter

BACKENDS = ["interpreter"] if INTERPRETED else ["reference", "native", WITH_GPU]
SHAPES = [(1, 1, 1), (3, 5, 7), (2, 64, 1029), (1, 1030, 67), (1, 4, 8)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_extended_precision(backend: str, dtype: torch.dtype, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(7)
    place = "cuda" if backend == "cuda" else "cpu"
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for shape in SHAPES:
        weights = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        length = shape[1 if transposed else 2]
        for vectors in (1, 4, 6):
            x = torch.randn(shape[0], vectors, length, generator=generator, dtype=torch.float64)
            with use_backend("triton" if backend in ("cuda", "interpreter") else backend):
                found = product.multiply(weights.to(place), x.to(place), transposed=transposed).cpu().numpy()
            a = weights.to(torch.float64).numpy().astype(np.longdouble)
            a = a if transposed else a.transpose(0, 2, 1)
            of = x.numpy().astype(np.longdouble)
            allowed = (length + 8) * 2.0**-53 * (np.abs(of) @ np.abs(a))
            assert (np.abs(found - of @ a) <= allowed).all(), (shape, vectors)


@on_both
def test_parts_of_a_sum_are_the_sum(device: str) -> None:
    """A single matrix is shared out over programs, by parts of its sums; one in a crowd is not."""
    triton_product = pytest.importorskip("spectrum_fast.measure.ops.product.triton")
    weights = torch.randint(-9, 9, (1, 3, 4100), generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    x = torch.randint(-9, 9, (1, 2, 4100), generator=torch.Generator().manual_seed(4)).double()
    strided = weights.mT.contiguous().mT
    repeated = x[:, :1].expand(1, 5, -1)
    for stored, wide in ((weights, x), (strided, x), (strided, x.mT.contiguous().mT), (weights, repeated)):
        found = triton_product.multiply(stored.to(device), wide.to(device))
        assert torch.equal(found.cpu(), wide @ weights.double().mT)


@on_both
def test_codes_with_a_scale_a_block(device: str) -> None:
    triton_product = pytest.importorskip("spectrum_fast.measure.ops.product.triton")
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 256, (2, 200, 390), generator=generator, dtype=torch.uint8)
    codes = torch.where((codes & 0x7F) == 0x7F, codes - 1, codes)
    scales = torch.rand(2, 2, 4, generator=generator)
    spread = scales.double().repeat_interleave(128, 1)[:, :200].repeat_interleave(128, 2)[:, :, :390]
    weights = codes.view(torch.float8_e4m3fn).double() * spread
    for transposed in (False, True):
        x = torch.randn(2, 5, 200 if transposed else 390, generator=generator, dtype=torch.float64)
        found = triton_product.multiply_block_scaled(
            codes.to(device), scales.to(device), x.to(device), transposed=transposed
        )
        expected = x @ (weights if transposed else weights.mT)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-13 * float(weights.norm()))


@outside_the_interpreter
def test_infinite_numbers_stay_infinite_and_float16_is_read_in_full() -> None:
    weights = torch.tensor([[[float("inf"), 1.0], [6e-8, 65504.0]]], dtype=torch.float16)
    x = torch.tensor([[[1.0, 1.0]]], dtype=torch.float64)
    for backend in ("reference", "native"):
        with use_backend(backend):
            found = product.multiply(weights, x)
        assert found[0, 0, 0] == float("inf")
        assert found[0, 0, 1] == weights[0, 1].to(torch.float64).sum()


@outside_the_interpreter
def test_threads_and_layout_change_no_bit() -> None:
    weights = torch.randn(2, 300, 1500, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    for transposed, length in ((False, 1500), (True, 300)):
        x = torch.randn(2, 8, length, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        threads = torch.get_num_threads()
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(product.multiply(weights, x, transposed=transposed))
        torch.set_num_threads(threads)
        strided = weights.mT.contiguous().mT
        found.append(product.multiply(strided, x, transposed=transposed))
        assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(
    ("weights", "x", "error", "words"),
    [
        (torch.zeros(1, 2, 3, dtype=torch.int8), torch.zeros(1, 1, 3, dtype=torch.float64), TypeError, "int8"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 1, 3), TypeError, "float64, found torch.float32"),
        (torch.zeros(2, 3), torch.zeros(1, 1, 3, dtype=torch.float64), ValueError, "weights: expected shape"),
        (torch.zeros(1, 0, 3), torch.zeros(1, 1, 3, dtype=torch.float64), ValueError, "weights: expected shape"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 1, 2, dtype=torch.float64), ValueError, "p, 3"),
        (torch.zeros(2, 2, 3), torch.zeros(1, 1, 3, dtype=torch.float64), ValueError, r"\(2, p, 3\)"),
    ],
)
@outside_the_interpreter
def test_what_is_refused(weights: torch.Tensor, x: torch.Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        product.multiply(weights, x)


@outside_the_interpreter
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("size", "half_width"), [(1, 1), (5, 8), (40, 3), (150, 16), (131, 32)])
def test_bands_multiply_as_what_they_stand_for(size: int, half_width: int, backend: str) -> None:
    generator = torch.Generator().manual_seed(size)
    bands = torch.randn(3, size, half_width + 1, generator=generator, dtype=torch.float64)
    dense = torch.zeros(3, size, size, dtype=torch.float64)
    for d in range(half_width + 1):
        bands[:, max(size - d, 0) :, d] = 0.0
        for diagonal in {d, -d} if d < size else ():
            dense.diagonal(diagonal, 1, 2).copy_(bands[:, : size - d, d])
    for vectors in (1, 4, 6):
        x = torch.randn(3, vectors, size, generator=generator, dtype=torch.float64)
        with use_backend(backend):
            found = product.multiply_band(bands, x)
            alone = product.multiply_band(bands[1:2], x[1:2])
        torch.testing.assert_close(found, x @ dense, rtol=1e-13, atol=1e-13)
        assert torch.equal(alone[0], found[1])


@outside_the_interpreter
def test_what_is_refused_of_bands() -> None:
    bands, x = torch.zeros(2, 5, 3, dtype=torch.float64), torch.zeros(2, 4, 5, dtype=torch.float64)
    for wrong in ((bands.float(), x), (bands, x.float())):
        with pytest.raises(TypeError, match=r"expected torch\.float64, found torch\.float32"):
            product.multiply_band(*wrong)
    for wrong in ((bands[:1], x), (bands, x[:, :, :4]), (bands[0], x), (bands, x[0])):
        with pytest.raises(ValueError, match=r"expected bands \(m, n, b \+ 1\)"):
            product.multiply_band(*wrong)
