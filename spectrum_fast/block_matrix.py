"""A matrix of which only blocks are ever in memory: what the engine asks of it, whoever reads the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor


@dataclass
class PassCount:
    """Passes over the file that were begun for one matrix, and blocks of the last one."""

    passes: int = 0
    blocks: int = 0

    def __str__(self) -> str:
        times = {1: "once", 2: "twice"}.get(self.passes, f"{self.passes} times")
        return f"read {times}, in {self.blocks} blocks"


@dataclass(frozen=True)
class BlockMatrix:
    """A matrix of which only blocks are ever in memory.

    Attributes:
        shape: rows and columns.
        dtype: element type of the blocks.
        device: where the blocks are.
        count: passes so far.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    open_pass: Callable[[], Iterator[Tensor]] = field(repr=False)
    count: PassCount = field(default_factory=PassCount)

    @property
    def is_tall(self) -> bool:
        """Whether blocks are runs of rows; else they are runs of columns."""
        return self.shape[0] >= self.shape[1]

    def numel(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    def blocks(self) -> Iterator[Tensor]:
        """Read the matrix once: (rows of a block, n) blocks if tall, (m, columns of a block) blocks if wide, in order.

        A block is valid until the next one is asked for.
        """
        self.count.passes += 1
        self.count.blocks = 0
        for block in self.open_pass():
            self.count.blocks += 1
            yield block

    def map(self, change: Callable[[Tensor], Tensor], dtype: torch.dtype) -> BlockMatrix:
        """The matrix whose blocks are ``change(block)``, of the same shape; nothing is read yet.

        ``change`` must act on rows alone for a tall matrix, and on columns alone for a wide one.
        """

        def open_pass() -> Iterator[Tensor]:
            for block in self.open_pass():
                yield change(block)

        return BlockMatrix(self.shape, dtype, self.device, open_pass, self.count)

    def to(self, dtype: torch.dtype) -> BlockMatrix:
        """The same matrix in another element type; nothing is read yet."""
        return self.map(lambda block: block.to(dtype), dtype)
