"""Bytes on disk -> :class:`TensorRef`: locating a checkpoint, checking its headers, naming its modules.

Nothing here reads tensor data (except the few kilobytes that find duplicates), runs model code or unpickles anything.
"""

from __future__ import annotations

from spectrum_fast.read.checkpoint.location import open_checkpoint
from spectrum_fast.read.checkpoint.record import Checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef

__all__ = ["Checkpoint", "TensorRef", "open_checkpoint"]
