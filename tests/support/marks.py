"""Marks on single parameters."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Parameters of which the common suite takes others of their kind: ``pytest -m slow`` runs these."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
