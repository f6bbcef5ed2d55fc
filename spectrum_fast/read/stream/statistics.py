"""What a stream did, for provenance, progress and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class StreamStatistics:
    """Counts of one stream so far.

    Attributes:
        capacity_bytes: byte budget.
        peak_buffer_bytes: most of it that was ever given out; never more than the budget.
        read_bytes: bytes read, gaps between tensors and further passes included.
        read_seconds: seconds of the reading threads, added up.
        wait_seconds: seconds that the consumer waited for bytes: what reading costs beyond what computing hides.
        batches: stretches that were read.
        weights: weights handed out.
        streamed_weights: those among them that were read by blocks.
        notes: what the reader should know, such as files that refused direct I/O.
    """

    capacity_bytes: int = 0
    peak_buffer_bytes: int = 0
    read_bytes: int = 0
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    batches: int = 0
    weights: int = 0
    streamed_weights: int = 0
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """The part that a scan keeps among what passed by in making it."""
        return {
            "buffer_bytes": self.capacity_bytes,
            "buffer_peak_bytes": self.peak_buffer_bytes,
            "bytes_from_storage": self.read_bytes,
            "weights_in_blocks": self.streamed_weights,
            "reading_notes": self.notes,
        }
