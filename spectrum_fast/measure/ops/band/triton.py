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

from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.band import device_kernels
from spectrum_fast.measure.ops.band.device_graph import RECORDINGS, graphs_are_on
from spectrum_fast.measure.ops.band.panels import reduce_batch, reduce_panels
from spectrum_fast.measure.ops.band.workspace import Workspace, allocate
from spectrum_fast.measure.ops.triton_support import launch_on

MAX_HALF_WIDTH = 64
"""Widest band served: the b x b work sits in the registers of one block."""


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None) -> Tensor:
    """Bands (m, n, b + 1) of symmetric matrices; DESTROYS ``matrices``, does not wait for the device.

    Args:
        matrices: (m, n, n), float32 or float64, symmetric in both halves, finite, contiguous.
        half_width: b in 1 ... 64 where n > b + 1.
        carried: (m, 8, n) float64 or None, see :func:`spectrum_fast.measure.ops.band.reduce_to_band`; by torch
            operations, three products a panel.

    Accuracy: float64: eigenvalue errors within 20 eps ||A||_F; float32: as for three bfloat16 products, see
    :func:`spectrum_fast.measure.ops.band.reduce_to_band` (the tests' limit is 100 eps ||A||_F).

    Raises:
        UsageError: a wider band.
    """
    if matrices.shape[1] > half_width + 1 and half_width > MAX_HALF_WIDTH:
        raise UsageError(
            f"half_width: backend 'triton' reduces to half-widths up to {MAX_HALF_WIDTH}, found {half_width}; "
            "use a narrower band or backend 'reference'"
        )

    def run(batch: Tensor) -> Tensor:
        with launch_on(batch):
            record = graphs_are_on() and batch.is_cuda
            recorded = RECORDINGS.reduce(batch, half_width, reduce_in, carried) if record else None
            return reduce_in(allocate(batch, half_width, carried=carried)) if recorded is None else recorded

    return reduce_batch(matrices, half_width, run)


def reduce_in(workspace: Workspace) -> Tensor:
    """Run all panels of a batch in its workspace and return its bands."""
    return reduce_panels(workspace, device_kernels)
