"""Settings of the whole suite; shared helpers whose assertions should explain themselves when they fail."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("bands", "instruction_sets", "interpreter", "truth")

# Every test, and every process that a test starts, runs with released buffers overwritten: a use after release is a
# NaN, never a plausible number.
os.environ["SPECTRUM_FAST_POISON"] = "1"
