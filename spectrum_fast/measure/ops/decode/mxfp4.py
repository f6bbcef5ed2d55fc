"""MXFP4: four-bit floats (e2m1) in groups of 32 that share a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode.nibbles import look_up_nibbles
from spectrum_fast.measure.ops.decode.scaled import scale_values
from spectrum_fast.measure.ops.dispatch import compiled_nibbles

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Value of each four-bit code: OCP Microscaling Formats 1.0, section 5.3.3."""


def decode_mxfp4(blocks: Tensor, scale: Tensor, backend: str = "auto") -> Tensor:
    """``W[i, 32 g + 2 k] = E2M1[blocks[i, g, k] & 15] * 2^(scale[i, g] - 127)``; the high nibble is at ``2 k + 1``.

    Args:
        blocks: uint8 [rows, groups, 16].
        scale: uint8 [rows, groups]; 255 means NaN.
        backend: one of :data:`spectrum_fast.measure.ops.dispatch.BACKENDS`; ``native`` and ``reference`` are equal to
        the bit.

    Returns:
        [rows, 32 * groups] bfloat16, exact: four bits of mantissa and an exponent of eight. (Codes of a scale above
        251 may exceed the largest bfloat16 and come out infinite; such a weight is not scored.) transformers holds the
        transpose, [experts, in, out]; singular values are the same.

    Raises:
        UnsupportedDtypeError: the shapes do not fit.

    Source: gpt-oss checkpoints; OCP Microscaling Formats 1.0.
    """
    if blocks.ndim != 3 or blocks.shape[-1] != 16 or scale.shape != blocks.shape[:-1]:
        raise UnsupportedDtypeError(
            f"expected blocks [rows, groups, 16] and scales [rows, groups], found {tuple(blocks.shape)} and "
            f"{tuple(scale.shape)}"
        )
    rows, groups, _ = blocks.shape
    table = torch.tensor(E2M1, dtype=torch.bfloat16, device=blocks.device)
    if (compiled := compiled_nibbles(blocks, backend)) is not None:
        every_scale = scale_values(torch.arange(256, dtype=torch.uint8, device=blocks.device)).to(torch.bfloat16)
        return compiled.groups_of_32(blocks, scale, table, every_scale)
    values = look_up_nibbles(blocks, table, low_first=True).view(rows, groups, 32)
    values *= scale_values(scale).to(torch.bfloat16)[..., None]
    return values.view(rows, 32 * groups)
