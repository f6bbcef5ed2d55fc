"""Sums that tensor cores make: no kernel may let one grow long inside of them.

They add 8 or 16 products at a time to a float32 accumulator and round towards zero every time (Fasi et al. 2021), so a
long sum of theirs shrinks. Neither the interpreter nor the compiler shows it: here the interpreter's product is
replaced by one that rounds as they do. ``test_triton_compile.py`` holds the compiler to the sums that are written
outside.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.interpreter import INTERPRETED

pytest.importorskip("triton.backends.nvidia")

from spectrum_fast.measure.ops.band import device_kernels
from spectrum_fast.measure.ops.band.device_sweep import sweep_kernel
from spectrum_fast.measure.ops.band.workspace import V_SCALE, allocate
from spectrum_fast.measure.ops.gram import triton as triton_gram

FLOAT32_EPS = 2.0**-23
GROUP = 16
"""Products that are added at once: 16 in one instruction of sm_90, 8 twice in one of sm_80."""

EXTRA_BITS = 1
"""Below the last of the largest addend: 1 on A100, 2 on H100."""

in_interpreter = pytest.mark.parametrize(
    "emulated", ["interpreter"] if INTERPRETED else [pytest.param("no", marks=pytest.mark.skip)]
)


def towards_zero(x: np.ndarray) -> np.ndarray:
    """Float64 to float32, never away from zero."""
    nearest = x.astype(np.float32)
    return np.where(np.abs(nearest) > np.abs(x), np.nextafter(nearest, np.float32(0)), nearest)


def emulated_product(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Total + A B as tensor cores compute it: addends cut at one unit below the last of the largest, and their sum."""
    for k in range(0, a.shape[1], GROUP):
        products = a[:, k : k + GROUP, None].astype(np.float64) * b[None, k : k + GROUP].astype(np.float64)
        addends = np.concatenate([total[:, None].astype(np.float64), products], axis=1)
        largest = np.frexp(np.abs(addends).max(axis=1, keepdims=True))[1]
        unit = np.ldexp(1.0, largest - 24 - EXTRA_BITS)
        total = towards_zero((np.trunc(addends / unit) * unit).sum(axis=1))
    return total


@pytest.fixture
def tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    exact = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, d, *options):
        if d.data.dtype != np.float32:
            return exact(self, a, b, d, *options)
        return interpreter.TensorHandle(emulated_product(a.data, b.data, d.data), d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def shrinkage(found: torch.Tensor, truth: torch.Tensor) -> float:
    """The part of the truth that is missing in what was found."""
    return float(1 - (found.double() * truth).sum() / truth.square().sum())


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_gram_of_a_long_side(dtype: torch.dtype, emulated: str, tensor_cores: None) -> None:
    terms = 16384 if dtype == torch.bfloat16 else 4096
    weight = (0.02 * torch.randn(16, terms, generator=torch.Generator().manual_seed(1))).to(dtype)
    out = torch.empty(1, 16, 16)
    depth = triton_gram.gram_options(dtype)["DEPTH"]
    triton_gram.launch_gram(weight[None], out, tile=16, DEPTH=depth)
    wide = weight.double()
    truth = wide @ wide.T
    error = float(torch.linalg.norm(out[0] - truth) / torch.linalg.norm(truth))
    assert error < (5e-7 if dtype == torch.bfloat16 else 5e-6)  # three bfloat16 products drop 2^-18 each
    # The engine scales the diagonal to the known trace; what lies beside it stays as it is.
    on = torch.eye(16, dtype=torch.bool)
    assert abs(shrinkage(out[0][on], truth[on])) < (2.5 * FLOAT32_EPS if dtype == torch.bfloat16 else 4e-6)
    assert abs(shrinkage(out[0][~on], truth[~on])) < (FLOAT32_EPS if dtype == torch.bfloat16 else 4e-6)

    in_one_go = emulated_product(wide.numpy(), wide.T.numpy(), np.zeros((16, 16), np.float32))
    assert shrinkage(torch.from_numpy(in_one_go), truth) > 1e-9 * terms, "the emulation must show the trouble"


@in_interpreter
def test_gram_of_codes(emulated: str, tensor_cores: None) -> None:
    """A block of 128 terms is one sum in the tensor cores: codes of four digits leave it room."""
    generator = torch.Generator().manual_seed(1)
    codes = (40 * torch.randn(128, 4096, generator=generator)).to(torch.float8_e4m3fn)
    scales = 1e-4 + 1e-3 * torch.rand(1, 32, generator=generator)
    out = torch.empty(1, 128, 128)
    depth = triton_gram.gram_options(codes.dtype)["DEPTH"]
    triton_gram.launch_gram(codes.view(torch.uint8)[None], out, scales=scales[None], DEPTH=depth)
    weight = codes.double() * scales.double().repeat_interleave(128, 1)
    truth = weight @ weight.T
    assert depth == 128
    assert torch.linalg.norm(out[0] - truth) < 3e-7 * torch.linalg.norm(truth)
    assert abs(shrinkage(out[0].diagonal(), truth.diagonal())) < FLOAT32_EPS


@in_interpreter
def test_product_with_the_panel_over_many_columns(emulated: str, tensor_cores: None) -> None:
    n, b = 4096, 16
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(1, n, n, generator=generator)
    w = allocate(matrix, b)
    v = torch.linalg.qr(torch.randn(n - b, b, generator=generator, dtype=torch.float64)).Q
    halves = w.basis_halves[0]
    halves[0, 0, b:] = (V_SCALE * v).to(torch.float16)
    halves[1, 0, b:] = (V_SCALE * v - halves[0, 0, b:]).to(torch.float16)
    # The first 128 rows of the trailing matrix, all columns in one program.
    sweep_kernel[(1, 1, 1)](
        w.matrix,
        halves,
        w.basis_halves[1],
        w.z_halves[0],
        w.product,
        w.scale,
        n,
        0,
        w.z_halves.stride(1),
        w.product.stride(0),
        HALF_WIDTH=b,
        PENDING=False,
        **device_kernels.sweep_options(b),
    )
    found, truth = w.product[0, 0, b : b + 128], matrix[0, b : b + 128, b:].double() @ v
    assert abs(shrinkage(found, truth)) < 1.5 * FLOAT32_EPS
    assert torch.linalg.norm(found - truth) < 8 * FLOAT32_EPS * torch.linalg.norm(truth)
