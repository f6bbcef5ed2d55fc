"""Shared helpers whose assertions should explain themselves when they fail."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("bands", "instruction_sets", "interpreter", "truth")
