"""The band reduction on the GPU: batched, without a wait for the device inside a matrix, capturable in a CUDA graph.

A panel of b columns below the diagonal block (absolute columns ``column ... column + b - 1``) takes 8 launches, and one
more where its Householder vectors are kept. Sums over the tall panel are taken in chunks of 64 rows, which whoever
comes last adds up (``device_sums``):

1. ``gather_panel``: P and the diagonal block out of the matrix, updates that wait applied to them (float64); the
   diagonal block goes into the band; ``Pᵀ P``.
2. ``factor_gram``, one block a matrix: columns scaled to equal length, Cholesky and inverse in one elimination.
3. ``orthonormalise``: ``Q1 = P W`` with one step of refinement, and ``Q1ᵀ Q1``.
4. ``reconstruct``, one block a matrix: second Cholesky (two series terms where ``Q1ᵀ Q1 - I`` is below 1e-8, which is
   the rule), LU of ``Q_top - S`` with its inverse by one Gauss-Jordan sweep, ``T``, ``R`` into the band; if the panel
   is *broken*, Householder reflections column by column over the tall panel instead.
5. ``form_basis``: V from Q1, rounded to two float16 halves for float32 matrices; ``V_kᵀ V`` and ``Z_kᵀ V`` of panels k
   that wait, ``x V`` of carried vectors.
6. ``sweep``: ``X = A V`` in one pass over the trailing matrix, after the last panel's update if none waits for others
   (float64: ``torch.baddbmm`` and ``torch.bmm``).
7. ``form_y``: X corrected by ``V_k (Z_kᵀ V) + Z_k (V_kᵀ V)``, ``Y = X T`` and ``Vᵀ Y``.
8. ``form_z``: ``Z = Y - 1/2 V Tᵀ (Vᵀ Y)``; carried vectors ``x <- x - (x V) T Vᵀ``.

Large matrices (``workspace.panels_together``) are updated once a group of panels by a ninth, ``update``, of rank 2 G b:
the lower half is read, all is written, and the panels between only read: 1 + 1.5 / G passes over the matrix a panel in
place of 2.

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
so the sweep is one read and at most one write of the matrix, with no atomic sum and the same bits in every run.

Bytes, flops, launches and chains, and the time that they predict: ``python -m bench.gpu.model``.

The other plan, the lower half only, moves the same bytes: the update reads and writes a half each, but A V needs every
tile twice in separate sums (a second pass, or atomic additions of n² B / 64 numbers), and saves a third of the flops.
Float64: 2 n³ flops in cuBLAS (1.1 TFLOP, 16 - 33 ms at 67 - 34 TFLOP/s) and three passes a panel (68 GB at b = 64,
16 ms); a fused float64 sweep would save one pass of the three and is not worth a kernel that must beat cuBLAS on flops.
"""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.band import device_kernels, reference, workspace
from spectrum_fast.measure.ops.band.panels import reduce_batch, reduce_panels
from spectrum_fast.measure.ops.device_graph import through_graph
from spectrum_fast.measure.ops.triton_support import launch_on

turn_back = reference.turn_back
"""Of a few vectors of few matrices."""
MAX_HALF_WIDTH = 64
"""Widest band served: the b x b work sits in the registers of one block."""


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None, vectors: bool = False) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.band.reduce_to_band`; does not wait for the device.

    Accuracy: float64: eigenvalue errors within 20 eps ||A||_F; float32: as for three bfloat16 products there (the
    tests' limit is 100 eps ||A||_F).
    """
    return reduce_in_groups(matrices, half_width, carried, workspace.panels_together(matrices.shape[1]), vectors)


def reduce_in_groups(
    matrices: Tensor, half_width: int, carried: Tensor | None, group: int, vectors: bool = False
) -> Tensor:
    """The same, ``group`` panels updated together.

    Raises:
        UsageError: a wider band than :data:`MAX_HALF_WIDTH`.
    """
    if matrices.shape[1] > half_width + 1 and half_width > MAX_HALF_WIDTH:
        raise UsageError(
            f"half_width: backend 'triton' reduces to half-widths up to {MAX_HALF_WIDTH}, found {half_width}; "
            "use a narrower band or backend 'reference'"
        )

    def reduce(batch: Tensor, moved: Tensor | None) -> tuple[Tensor, ...]:
        room = workspace.allocate(batch, half_width, carried=moved, group=group)
        bands = reduce_panels(room, device_kernels, vectors)
        return bands, *([] if moved is None else [moved]), *([batch] if vectors else [])

    def run(batch: Tensor) -> Tensor:
        with launch_on(batch):
            bands, *others = through_graph(("band", half_width, group, vectors), reduce, batch, carried)
        theirs = [*([] if carried is None else [carried]), *([batch] if vectors else [])]
        for given, found in zip(theirs, others, strict=True):
            if found is not given:  # a replay works in memory of its own
                given.copy_(found)
        return bands

    return reduce_batch(matrices, half_width, run)
