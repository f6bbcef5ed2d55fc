"""The device that a kernel's test runs on."""

from __future__ import annotations

import pytest
import torch

from support.interpreter import INTERPRETED

if INTERPRETED:
    from support.interpreter_sooner import make_sooner

    make_sooner()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """``cpu`` for ``torch`` and ``interpreter``, ``cuda`` for ``cuda`` where there is a GPU."""
    if request.param == "cuda" and (INTERPRETED or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device (test_in_the_interpreter runs the small ones without)")
    return "cuda" if request.param == "cuda" else "cpu"
