"""The Gram product against float64 truth: every dtype, layout, backend and instruction set."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.dispatch import native_problem

from support.instruction_sets import run_at_level
from support.operations import add_gram, gram

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (17, 33), (129, 257), (300, 64), (64, 300)]
PAIRS = [
    (torch.float32, torch.float32),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.float64, torch.float64),
    (torch.float32, torch.float64),
    (torch.float16, torch.float64),
    (torch.bfloat16, torch.float64),
]
LEVELS = {"portable": None, "avx2": "avx2_fma", "avx512": "avx512", "avx512_bf16": "avx512_bf16", "amx": "amx_bf16"}

needs_native = pytest.mark.skipif(native_problem() is not None, reason=str(native_problem()))
both_backends = pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
pair_ids = [f"{str(a)[6:]}-{str(b)[6:]}" for a, b in PAIRS]


def normal(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)


def truth(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrix in float64, and the sum of absolute products behind each entry."""
    wide = weight.double()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
    return wide @ wide.T, wide.abs() @ wide.abs().T


def relative_error(found: Tensor, weight: Tensor) -> float:
    """Largest entrywise error in units of eps of the result and of the sum of absolute products."""
    expected, size = truth(weight)
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    error = (found.double() - expected).abs()
    return float((error / size.clamp_min(torch.finfo(torch.float64).tiny)).max()) / torch.finfo(found.dtype).eps


def bound(depth: int) -> float:
    """Sums of blocks of at most 512 terms: far below the worst case (the block), far above what random signs give.

    Random rounding errors of a sum of n positive terms grow like sqrt(n); the truth itself is a float64 product.
    """
    return 4 + 2 * min(depth, 512) ** 0.5 + depth / 256


@both_backends
@pytest.mark.parametrize(("dtype", "out_dtype"), PAIRS, ids=pair_ids)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_entries(shape, dtype, out_dtype, backend):
    weight = normal(*shape, dtype)
    found = gram(weight, out_dtype=out_dtype, backend=backend)
    assert found.dtype == out_dtype
    assert found.is_contiguous()
    assert relative_error(found, weight) <= bound(max(shape))


@both_backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (33, 70), (70, 33)], ids=str)
def test_strides(shape, dtype, backend):
    rows, columns = shape
    out_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    views = {
        "transposed": normal(columns, rows, dtype).T,
        "slice": normal(rows + 3, columns + 5, dtype)[2 : rows + 2, 3 : columns + 3],
        "every third": normal(2 * rows, 3 * columns, dtype)[::2, ::3],
        "one row for all": normal(1, columns, dtype).expand(rows, columns),
    }
    for name, view in views.items():
        assert relative_error(gram(view, out_dtype=out_dtype, backend=backend), view) <= bound(max(shape)), name


@needs_native
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (64, 64), (65, 31), (257, 300)], ids=str)
def test_every_entry_is_written_and_both_halves_agree(shape, dtype):
    from spectrum_fast import _native

    out = torch.full((min(shape),) * 2, torch.nan, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    _native.gram(normal(*shape, dtype)[None], out[None])
    assert torch.isfinite(out).all()
    assert torch.equal(out, out.T)


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_long_sums(dtype, backend):
    # Positive terms of one size: rounding errors add up in the most unfavourable way that data can have.
    weight = (normal(9, 40_003, torch.float64).abs() + 0.5).to(dtype)
    assert relative_error(gram(weight, backend=backend), weight) <= bound(40_003)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_short_sums_in_float32_and_long_ones_in_float64(dtype):
    # Float32 throughout gives 7e-7 (bfloat16) and 2e-7; results that are only rounded to float32 2e-8.
    weight = normal(300, 3000, dtype, seed=3)
    expected, _ = truth(weight)
    error = gram(weight, backend="native").double() - expected
    assert torch.linalg.norm(error) <= 1e-7 * torch.linalg.norm(expected)


@both_backends
def test_float64_is_exact_to_float64(backend):
    weight = normal(6, 90, torch.float64)
    found = gram(weight, out_dtype=torch.float64, backend=backend)
    for i in range(6):
        for j in range(6):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(weight[i], weight[j], strict=True)]
            error = abs(Fraction(float(found[i, j])) - sum(terms))
            assert error <= 8 * Fraction(torch.finfo(torch.float64).eps) * sum(abs(term) for term in terms)


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_integers_are_exact(dtype, backend):
    # Small integers: every product and every partial sum is a float32 number, whatever the order of summation.
    weight = torch.randint(-8, 9, (70, 131), generator=torch.Generator().manual_seed(3)).to(dtype)
    assert torch.equal(gram(weight, backend=backend).double(), truth(weight)[0])


@both_backends
def test_half_precision_extremes(backend):
    # Smallest subnormal, smallest normal, largest: decoded exactly.
    weight = torch.tensor([[2.0**-24, 2.0**-14, 65504.0, -0.0]], dtype=torch.float16)
    found = gram(weight, out_dtype=torch.float64, backend=backend)
    assert float(found) == 2.0**-48 + 2.0**-28 + 65504.0**2


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_not_finite_stays_not_finite(value, dtype, backend):
    weight = normal(20, 40, dtype)
    weight[3, 5] = value
    found = gram(weight, backend=backend)
    assert not torch.isfinite(found[3, 3])
    assert torch.isfinite(found[4, 4])


@both_backends
def test_parameter_that_requires_a_gradient(backend):
    weight = torch.nn.Parameter(normal(4, 6, torch.float32))
    assert not gram(weight, backend=backend).requires_grad


@both_backends
@pytest.mark.parametrize(("dtype", "out_dtype"), PAIRS, ids=pair_ids)
@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (40, 7), (130, 700), (700, 130)], ids=str)
def test_blocks_add_up_to_the_whole(shape, dtype, out_dtype, backend):
    weight = normal(*shape, dtype)
    wide = weight if shape[0] <= shape[1] else weight.T  # row blocks of a tall weight are transposed column blocks
    out = torch.zeros((min(shape),) * 2, dtype=out_dtype)
    for block in wide.split(max(1, wide.shape[1] // 3), dim=1):  # the last one may be a single column
        add_gram(block, out, backend=backend)
    assert relative_error(out, weight) <= bound(max(shape))
    assert torch.equal(out, out.T) or backend == "reference"


@both_backends
def test_a_block_is_added_to_what_is_there(backend):
    block = torch.randint(-8, 9, (70, 31), generator=torch.Generator().manual_seed(3)).float()
    before = torch.randint(-8, 9, (70, 70), generator=torch.Generator().manual_seed(4)).float()
    before += before.T.clone()
    out = before.clone()
    add_gram(block, out, backend=backend)
    assert torch.equal(out, before + block @ block.T)  # small integers: exact


@both_backends
@pytest.mark.parametrize(
    ("block", "out", "error", "words"),
    [
        (torch.ones(3, 2), torch.zeros(2, 2), ValueError, r"\(1, 3, 3\)"),
        (torch.ones(3, 2), torch.zeros(3, 6)[:, ::2], ValueError, "contiguous"),
        (torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 3), TypeError, "float64 weight"),
        (torch.ones(3, 2), torch.zeros(3, 3, dtype=torch.float16), TypeError, "float16"),
        (torch.ones(3, 0), torch.zeros(3, 3), ValueError, "blocks: expected shape"),
    ],
)
def test_refused_blocks(block, out, error, words, backend):
    with pytest.raises(error, match=words):
        add_gram(block, out, backend=backend)


@needs_native
def test_same_bits_for_any_number_of_threads():
    from spectrum_fast import _native

    weight, before = normal(300, 700, torch.float32), _native.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            _native.set_num_threads(threads)
            results.append(gram(weight, backend="native"))
    finally:
        _native.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@needs_native
@pytest.mark.parametrize("shape", [(1, 1), (31, 65), (32, 64), (65, 33), (100, 1500)], ids=str)
def test_amx_kernel_on_the_model_of_the_tiles(shape):
    from spectrum_fast import _native

    weight = normal(*shape, torch.bfloat16)
    out = torch.full((min(shape),) * 2, torch.nan)
    _native.gram_amx_model(weight[None], out[None])
    assert relative_error(out, weight) <= bound(max(shape))


@needs_native
@pytest.mark.parametrize("level", LEVELS)
def test_instruction_sets(level):
    result = run_at_level(level, LEVELS[level], "gram_at_level")
    general = "avx512" if level in ("avx512_bf16", "amx") else level
    special = {"avx512_bf16": "avx512-bf16", "amx": "amx-bf16"}.get(level, general)
    assert result["names"] == {"float64": general, "float32": general, "float16": general, "bfloat16": special}
    for case, error in result["errors"].items():
        assert error <= bound(1100), case


@pytest.mark.parametrize(
    ("weight", "out_dtype", "error", "words"),
    [
        (torch.zeros(2, 3, dtype=torch.int32), torch.float32, TypeError, "int32"),
        (torch.zeros(2, 3, dtype=torch.float64), torch.float32, TypeError, "float64 weight"),
        (torch.zeros(2, 3), torch.bfloat16, TypeError, "bfloat16"),
        (torch.zeros(3), torch.float32, ValueError, r"\(1, 3\)"),
        (torch.zeros(0, 3), torch.float32, ValueError, r"\(1, 0, 3\)"),
    ],
)
def test_refused_arguments(weight, out_dtype, error, words):
    with pytest.raises(error, match=words):
        gram(weight, out_dtype=out_dtype)


def test_unknown_backend():
    with pytest.raises(UsageError, match="turbo"):
        gram(torch.ones(1, 1), backend="turbo")


@needs_native
@pytest.mark.parametrize(
    ("weight", "out", "error"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 3), ValueError),
        (torch.zeros(2, 3), torch.zeros(2, 4)[:, ::2], ValueError),
        (torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.float16), TypeError),
        (torch.zeros(2, 3).double(), torch.zeros(2, 2), TypeError),
        (torch.zeros(2, 3).int(), torch.zeros(2, 2), TypeError),
        (torch.zeros(2), torch.zeros(2, 2), ValueError),
    ],
)
def test_extension_refuses(weight, out, error):
    from spectrum_fast import _native

    with pytest.raises(error):
        _native.gram(weight[None], out[None])


@needs_native
def test_kernel_name_of_an_unknown_dtype():
    from spectrum_fast import _native

    with pytest.raises(ValueError, match="int8"):
        _native.gram_kernel("int8")
