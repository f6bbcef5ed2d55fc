"""Settings of the whole suite; shared helpers whose assertions should explain themselves when they fail."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 - its library must be there to be limited
import pytest
import threadpoolctl
import torch
from hypothesis import Phase, settings

import emulated_cuda

if emulated_cuda.ASKED_FOR:
    emulated_cuda.install()

pytest.register_assert_rewrite("support.bands", "support.instruction_sets", "support.interpreter", "support.truth")

# Every test, and every process that a test starts, runs with released buffers overwritten: a use after release is a
# NaN, never a plausible number.
os.environ["SPECTRUM_FAST_POISON"] = "1"

# Threads of numpy's own library fight with torch's for the cores: a small matrix takes a hundred times longer.
threadpoolctl.threadpool_limits(limits=1, user_api="blas")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# For mutation testing: a mutant that fails needs no smallest example, and looking for one takes a minute.
settings.register_profile("first-failure", phases=[Phase.explicit, Phase.generate])

_HERE = Path(__file__).parent
LONGEST = (
    _HERE / "measure" / "ops" / "test_triton_compile.py",
    _HERE / "measure" / "ops" / "test_in_the_interpreter.py",
    _HERE / "measure" / "spectra" / "test_error_bounds.py",
    _HERE / "use" / "training" / "test_zero3.py",
    _HERE / "test_emulated_gpu.py",
    _HERE / "use" / "report" / "html",
    _HERE / "use" / "training",
    _HERE / "measure" / "ops",
)
"""Half a minute of a core and more, the longest first."""
NEAR_BOUNDS: list[str] = []
FROZEN_MODULES = [0]
"""How many were loaded when what there was was taken out of the search for circles."""
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def pytest_configure(config: pytest.Config) -> None:
    """But for ``-m gpu`` no test sees a GPU: a scan would take it, where its truth is one of the CPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collectstart() -> None:
    """Python looks for no circles while modules are imported: that takes a quarter of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor among those that are there, a million objects, whenever a test has made some of its own."""
    gc.enable()
    _freeze_modules()


@pytest.fixture(scope="session", autouse=True)
def _logs_of_torchrun(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Empty folders, which torchrun leaves in the system's temporary one unless it is told where."""
    os.environ["PET_LOG_DIR"] = str(tmp_path_factory.mktemp("torchrun"))


@pytest.fixture(scope="module", autouse=True)
def _modules_of_tests() -> Iterator[None]:
    """The same of what the tests of a file have imported, once the file is done and its own objects are gone."""
    yield
    if len(sys.modules) > FROZEN_MODULES[0] + 100:
        _freeze_modules()


def _freeze_modules() -> None:
    gc.collect()
    gc.freeze()
    FROZEN_MODULES[:] = [len(sys.modules)]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; one of the whole process, since a second engine cannot start beside the first."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Thousands of tiny matrices are scored sooner by one thread than by threads that wait for each other."""
    from spectrum_fast.measure.ops.dispatch import set_threads

    before = torch.get_num_threads()
    set_threads(1)
    yield
    set_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that of several processes none is left with them at the end."""
    items.sort(key=lambda item: [item.path.is_relative_to(place) for place in LONGEST], reverse=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """How near errors came to their stated bounds, if any test of this process held them to it."""
    cases = sys.modules.get("support.bound_cases")
    if cases is not None:
        lines = cases.TALLY.lines()
        NEAR_BOUNDS.extend(lines)
        getattr(session.config, "workeroutput", {})["near_bounds"] = lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The same of another process of this run."""
    NEAR_BOUNDS.extend(getattr(node, "workeroutput", {}).get("near_bounds", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so."""
    if NEAR_BOUNDS:
        terminalreporter.section("stated error bounds")
    for line in NEAR_BOUNDS:
        terminalreporter.line(line)
