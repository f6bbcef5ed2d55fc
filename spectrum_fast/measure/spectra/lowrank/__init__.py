"""Truncated singular value decomposition by a randomized block Krylov method, batched, with a measured error."""

from __future__ import annotations

from spectrum_fast.measure.spectra.lowrank.factor import LowRankSvd, svd_lowrank

__all__ = ["LowRankSvd", "svd_lowrank"]
