"""The device that a kernel's test runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from support.interpreter import INTERPRETED, interpreting_ahead


@pytest.fixture(autouse=True, scope="session")
def interpreter_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """From the first test in here on, what every ``test_in_the_interpreter`` will ask for is run beside the others."""
    found = [item for item in request.session.items if item.name == "test_in_the_interpreter"]
    with interpreting_ahead([] if INTERPRETED else [str(item.path) for item in found]):
        yield


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """``cpu`` for ``torch`` and ``interpreter``, ``cuda`` for ``cuda`` where there is a GPU."""
    if request.param == "cuda" and (INTERPRETED or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device (test_in_the_interpreter runs the small ones without)")
    return "cuda" if request.param == "cuda" else "cpu"
