"""LASER (Sharma et al. 2023, arXiv 2312.13558): chosen matrices replaced by low-rank ones in a new checkpoint.

Or by what is left of them, the low-rank part being an adapter (PiSSA).
"""

from __future__ import annotations

from spectrum_fast.use.laser.pissa import pissa_targets
from spectrum_fast.use.laser.targets import LaserTarget, choose_targets
from spectrum_fast.use.laser.write import LaserRecord, write_laser

__all__ = ["LaserRecord", "LaserTarget", "choose_targets", "pissa_targets", "write_laser"]
