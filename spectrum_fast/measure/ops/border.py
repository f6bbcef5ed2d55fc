"""How tensors reach the compiled extension."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.dlpack import to_dlpack  # pyright: ignore[reportPrivateImportUsage]


def passed(*tensors: Tensor | None) -> list[Any]:
    """CPU tensors as DLPack capsules, each to be taken once; nothing is copied.

    A capsule costs 1 us. Of a tensor that is passed as it is the extension asks one by Python code of torch, in 8 us.
    """
    return [None if tensor is None else to_dlpack(tensor) for tensor in tensors]
