"""A weight in its codes: what every packed layout comes to, and what the decoding kernels take."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """``W[i, j] = (value(codes[i, j]) - zero[i // a, j // b]) * scale[i // a, j // b]`` with ``(a, b) = block``.

    The product is rounded once to float32, or exact in bfloat16 where ``table`` is in bfloat16 and scales are powers of
    two. Libraries often round once more, to the model's compute type: that is rounding of the computation and no
    property of the stored weight, so it is left out here.

    Attributes:
        codes: contiguous; one value a byte, (rows, columns) in float8 e4m3, float8 e5m2, int8 or uint8; with a
            ``table`` two values a byte, (rows, at least columns / 2) uint8.
        scale: one for each block, row-major, (ceil(rows / a), ceil(columns / b)); a float type, or the exponents of
            powers of two (bias 127, 255 is NaN) in e8m0 or uint8.
        block: rows and columns that share a scale; the last blocks may be cut short.
        shape: of the weight; where it is not (rows, columns), the blocks run on over the ends of its rows, and there is
            one row of codes.
        zero: as many as scales, float32, or None.
        table: value of each of the 16 codes, float32 or bfloat16; None where a byte is a value.
        low_first: the low four bits hold the first of a byte's two values.
        group_of_column: block of columns of each column, where these are in no order; then ``a`` is 1.
    """

    codes: Tensor
    scale: Tensor
    block: tuple[int, int]
    shape: tuple[int, int]
    zero: Tensor | None = None
    table: Tensor | None = None
    low_first: bool = True
    group_of_column: Tensor | None = None

    @property
    def row_length(self) -> int:
        """Values in a row of codes."""
        return self.shape[0] * self.shape[1] // self.codes.shape[0]

    @property
    def is_mxfp4(self) -> bool:
        """Four-bit floats in groups of 32 that share a power of two, which come out in bfloat16."""
        return self.table is not None and self.table.dtype == torch.bfloat16

    @property
    def device(self) -> torch.device:
        """Where the codes lie."""
        return self.codes.device

    def to(self, device: str) -> Codes:
        """The same on another device."""
        parts = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)


def scale_values(scale: Tensor) -> Tensor:
    """Scales as float32; a byte is the exponent of a power of two (e8m0), 255 is NaN."""
    if scale.dtype == torch.uint8:
        scale = scale.view(torch.float8_e8m0fnu)
    return scale.to(torch.float32)
