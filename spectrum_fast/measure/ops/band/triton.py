"""The band reduction on the GPU: batched, without a wait for the device inside a matrix, capturable in a CUDA graph.

A panel of b columns below the diagonal block (absolute columns ``column ... column + b - 1``) takes these launches:

1. ``gather_panel``: P and the diagonal block out of the matrix, the last panel's update applied to them (float64);
   the diagonal block goes into the band; sums of ``Pᵀ P`` over chunks of 64 rows.
2. total of the chunks (``torch.sum``).
3. ``factor_gram``, one block a matrix: columns scaled to equal length, Cholesky and inverse in one elimination.
4. ``orthonormalise``: ``Q1 = P W`` with one step of refinement, and the chunks of ``Q1ᵀ Q1``.
5. their total.
6. ``reconstruct``, one block a matrix: second Cholesky (two series terms where ``Q1ᵀ Q1 - I`` is below 1e-8, which is
   the rule), LU of ``Q_top - S`` with its inverse by one Gauss-Jordan sweep, ``T``, ``R`` into the band.
7. ``reflect_columns``, one block a matrix, which returns at once unless the panel is *broken*: Householder
   reflections column by column over the tall panel.
8. ``form_basis``: V from Q1, rounded to two float16 halves for float32 matrices.
9. ``sweep``: the last panel's update of the whole trailing matrix and ``X = A V`` of the updated tiles, in one pass
   (float64: ``torch.baddbmm`` and ``torch.bmm``).
10. ``form_y``: ``Y = X T`` and the chunks of ``Vᵀ Y``.
11. their total.
12. ``form_z``: ``Z = Y - 1/2 V Tᵀ (Vᵀ Y)``.

Broken panels. A pivot of the scaled ``Pᵀ P`` under 1e-14 or an entry of ``Q1ᵀ Q1 - I`` over 1e-4 (condition above
about 5e5 with columns of equal length), a zero column, and a panel wider than tall set a flag in device memory; nothing
is asked by the host. The fallback is unconditionally stable: any rank, any grading, any shape. It runs on one
multiprocessor a matrix, roughly 0.1 s for a 8192 x 64 panel at 100 GB/s: rank-deficient matrices pay, trained ones do
not.

Precision. Panels in float64. Float32 matrices: update and ``A V`` in three float16 products (hi hi + hi lo + lo hi)
with float32 accumulation, 22 bits a number. Powers of two put ``||A'||_F``, A' being the matrix without its first b
rows and columns, at 4096 to 8192 and V, whose entries are at most 1, at 1024: nothing that an orthogonal similarity
makes of A' overflows (the largest ``|Z|`` seen is ``||A'||_F / 2``, 16 times below the limit), and subnormal numbers
lose less than 2^-37 ||A'||_F an entry. (The scale of the whole matrix would drown the bulk of one whose outliers were
rotated into the first rows: 12 of 300 to 1400 times the median cost 4e-4 of the score, five times its bound.) Three
bfloat16 products, 16 bits a number, cost the same and were 20 times worse (torch model, n <= 257: 34 eps ||A||_F
against 1.7): reflectors rounded to 16 bits are not orthogonal to float32. Both halves of the matrix are read and kept,
so the sweep is one read and one write of the matrix, with no atomic sum and the same bits in every run.

**Estimates, not measured**, one float32 matrix, n = 8192 (launches 12 a panel, at half-width 64
14 since the reconstruction is three, without the final ones):

==================  =======================  =======================================
half-width            32                       64
==================  =======================  =======================================
panels, launches    255, 3060                127, 1778
  host, at 14 us    43 ms (0 from a graph)   25 ms (0)
sweep, traffic      255 x 179 MB = 46 GB     127 x 179 MB = 23 GB
  at 4.3 TB/s       10.6 ms                  5.3 ms
sweep, flops        2 n³ x 3 = 3.3 TFLOP     the same
  at 790 TFLOP/s    4.2 ms                   4.2 ms (float16 rate = bfloat16 rate)
one-block steps     2 x 32 a panel, 16320    2 x 64 a panel, 16256
  at 0.3 - 0.5 us   5 - 8 ms                 5 - 8 ms
tall products       11 n B² a panel (float64 multiply-adds, mean n/2): 0.01, 0.02 TFLOP
==================  =======================  =======================================

The other plan, the lower half only, moves the same bytes: the update reads and writes a half each, but A V needs every
tile twice in separate sums (a second pass, or atomic additions of n² B / 64 numbers), and saves a third of the flops.
Float64: 2 n³ flops in cuBLAS (1.1 TFLOP, 16 - 33 ms at 67 - 34 TFLOP/s) and three passes a panel (68 GB at b = 64,
16 ms); a fused float64 sweep would save one pass of the three and is not worth a kernel that must beat cuBLAS on flops.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.band import device_torch
from spectrum_fast.measure.ops.band.device_graph import RECORDINGS, graphs_are_on
from spectrum_fast.measure.ops.band.device_workspace import Workspace, allocate
from spectrum_fast.measure.ops.triton_support import INTERPRETED, launch_on

MAX_HALF_WIDTH = 64
"""Widest band served: the b x b work sits in the registers of one block."""


def reduce_to_band(matrices: Tensor, half_width: int) -> Tensor:
    """Bands (m, n, b + 1) of symmetric matrices; DESTROYS ``matrices``, does not wait for the device.

    Args:
        matrices: (m, n, n), float32 or float64, symmetric in both halves, finite, contiguous. On a CPU tensor the
            kernels are replaced by torch operations of the same meaning (outside the interpreter): the tests of the
            order of steps need no GPU.
        half_width: b in 1 ... 64 where n > b + 1.

    Accuracy: float64: eigenvalue errors within 20 eps ||A||_F; float32: as for three bfloat16 products, see
    :func:`spectrum_fast.measure.ops.band.reduce_to_band` (the tests' limit is 100 eps ||A||_F).

    Raises:
        UsageError: a wider band.
    """
    n = matrices.shape[1]
    if n > half_width + 1 and half_width > MAX_HALF_WIDTH:
        raise UsageError(
            f"half_width: backend 'triton' reduces to half-widths up to {MAX_HALF_WIDTH}, found {half_width}; "
            "use a narrower band or backend 'reference'"
        )
    if n <= half_width + 1:
        bands = matrices.new_zeros(len(matrices), n, half_width + 1)
        _write_block(bands, matrices, 0)
        return bands
    if len(matrices) == 0:
        return matrices.new_zeros(0, n, half_width + 1)
    scale = _scale_down(matrices) if matrices.dtype == torch.float64 else None
    with launch_on(matrices):
        record = graphs_are_on() and matrices.is_cuda
        recorded = RECORDINGS.reduce(matrices, half_width, reduce_in) if record else None
        bands = reduce_in(allocate(matrices, half_width)) if recorded is None else recorded
    if scale is not None:
        bands /= scale
    return bands


def reduce_in(workspace: Workspace, steps: ModuleType | None = None) -> Tensor:
    """Run all panels of a batch in its workspace and return its band; ``steps`` replaces the kernels (tests)."""
    steps = steps or choose_steps(workspace.matrix)
    w, n, b = workspace, workspace.order, workspace.half_width
    index = 0
    while n - index * b > b + 1:
        steps.gather_panel(w, index)
        steps.factor_gram(w, index)
        steps.orthonormalise(w, index)
        steps.reconstruct(w, index)
        steps.reflect_columns(w, index)
        steps.form_basis(w, index)
        steps.sweep(w, index)
        steps.form_y(w, index)
        steps.form_z(w, index)
        index += 1
    column = index * b
    block = w.matrix[:, column:, column:].to(torch.float64)
    v, z = w.basis[(index - 1) % 2, :, column:], w.z[:, column:]
    _write_block(w.band, (block - v @ z.mT - z @ v.mT).to(w.matrix.dtype), column)
    return w.band


def choose_steps(matrix: Tensor) -> ModuleType:
    """Kernels for CUDA tensors (and in the interpreter), torch operations for CPU tensors."""
    if matrix.device.type == "cuda" or INTERPRETED:
        from spectrum_fast.measure.ops.band import device_kernels

        return device_kernels
    return device_torch


def _scale_down(batch: Tensor) -> Tensor:
    """Multiply each matrix in place by a power of two so that its largest entry is in [1/2, 1); return the factors.

    The panels square their entries; float32 panels do so in float64 and need no scaling.
    """
    largest = batch.abs().amax(dim=(1, 2), keepdim=True)
    exponent = torch.frexp(torch.where(largest > 0, largest, 1)).exponent.to(torch.int64)
    # Powers of two made of bits; 2^-1023 and beyond would be subnormal, and matrices that large are not scaled fully.
    scale = ((1023 - exponent.clamp(-1021, 1021)) << 52).view(torch.float64)
    batch *= scale
    return scale


def _write_block(band: Tensor, block: Tensor, column: int) -> None:
    """Lower half of the last diagonal block (m, k, k), k <= b + 1, into the band from ``column`` on."""
    size, width = block.shape[1], band.shape[2]
    j = torch.arange(size, device=block.device)[:, None]
    d = torch.arange(width, device=block.device)[None, :]
    inside = j + d < size
    flat = torch.where(inside, (j + d) * size + j, 0).reshape(-1)
    values = block.reshape(block.shape[0], -1).index_select(1, flat).reshape(-1, size, width)
    band[:, column:] = values.masked_fill(~inside, 0)
