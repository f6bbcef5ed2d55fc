"""Where one tensor lies: the record that the header parser hands to the reader."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from spectrum_fast.read.storage import Address, Stamp
from spectrum_fast.read.storage.files import shorten


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor of a safetensors or GGUF file, not yet read.

    Attributes:
        name: parameter name as stored, ``model.layers.0.mlp.down_proj.weight``.
        file: path, or remote address, of the file that holds the bytes.
        dtype: storage type as the header names it, ``BF16``.
        shape: extents, row-major; empty for a scalar.
        begin: absolute offset in ``file`` of the first byte.
        nbytes: number of bytes; the header parser has checked it against ``shape`` and ``dtype``.
        stamp: state of the file when its header was read, or None if it is not to be checked.
        interleaved_heads: heads in each of which row ``i + j n / 2`` of the model, j = 0 or 1, of n rows is stored as
            row ``2 i + j`` (GGUF's order for rotary positions); 0 where rows stand as in the model.
    """

    name: str
    file: Address
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int
    stamp: Stamp | None = field(default=None, repr=False, compare=False)
    interleaved_heads: int = 0

    def __hash__(self) -> int:
        return hash((self.name, self.begin))  # tells nearly all apart; a path's takes longer than all the rest

    def __str__(self) -> str:
        return f"tensor {shorten(self.name)} in {self.file}"

    @property
    def element_count(self) -> int:
        """Number of elements, 1 for a scalar.

        >>> from pathlib import Path
        >>> TensorRef("w", Path("m.safetensors"), "F32", (2, 3), 100, 24).element_count
        6
        """
        return math.prod(self.shape)

    def item(self, index: int) -> TensorRef:
        """The part ``tensor[index]``; its bytes are contiguous.

        >>> from pathlib import Path
        >>> part = TensorRef("w", Path("m.safetensors"), "BF16", (4, 3, 2), 100, 48).item(2)
        >>> part.shape, part.begin, part.nbytes
        ((3, 2), 124, 12)
        """
        nbytes = self.nbytes // self.shape[0]
        return replace(self, shape=self.shape[1:], begin=self.begin + index * nbytes, nbytes=nbytes)
