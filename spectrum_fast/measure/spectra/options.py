"""What the engine can be asked for; apart from it, so that a command's help need not load it."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Method: TypeAlias = Literal["auto", "band", "svd"]
Precision: TypeAlias = Literal["auto", "float32", "float64"]
METHODS: tuple[str, ...] = get_args(Method)
PRECISIONS: tuple[str, ...] = get_args(Precision)
DEFAULT_TOLERANCE = 1e-4
"""Relative accuracy of a score: published scans have a median gap of 0.5 to 5 % at the cut, a hundred times this."""
