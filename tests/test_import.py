"""What importing the package does and does not do, and that its examples are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import pkgutil
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import spectrum_fast as sf

from support import scans
from support.processes import script

HEAVY = (
    "triton",
    "transformers",
    "deepspeed",
    "peft",
    "matplotlib",
    "accelerate",
    "trl",
    "datasets",
    "plotly",
    "obstore",
)


def module_names() -> list[str]:
    found = pkgutil.walk_packages(sf.__path__, "spectrum_fast.")
    return ["spectrum_fast", *(info.name for info in found if not info.name.endswith(("__main__", "_native")))]


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        (["spectrum_fast", "spectrum_fast.use.cli", "spectrum_fast.choose.selection.export.write"], {*HEAVY, "torch"}),
        (
            [f"spectrum_fast:{','.join(name for name in dir(sf) if 'Callback' not in name)}", "spectrum_fast.doctor"],
            {*HEAVY},
        ),
    ],
)
def test_importing_loads_no_heavy_package_and_torch_only_when_work_begins(
    imported: list[str], unwanted: set[str]
) -> None:
    command = [sys.executable, "-W", "error::ImportWarning", script("after_importing"), *imported]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert unwanted.isdisjoint(json.loads(done.stdout)["modules"])


def test_a_scan_is_read_and_selected_from_without_torch(tmp_path: Path) -> None:
    scans.dense_model(spectra=False).save(tmp_path / "scan.json")
    code = (
        "import sys, spectrum_fast as sf; scan = sf.load_scan('scan.json'); scan.select(25); "
        "print(len(scan), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(len(scans.dense_model(spectra=False))), "False"]


def test_help_fits_two_screens_and_names_all_that_is_public() -> None:
    """Here, where the training libraries may be imported already; and in a process that has none."""
    absent = "import sys, pydoc; sys.modules['transformers'] = None; "
    code = f"{absent}print(pydoc.render_doc('spectrum_fast', renderer=pydoc.plaintext))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for whole in (pydoc.render_doc("spectrum_fast", renderer=pydoc.plaintext), done.stdout):
        text = whole.partition("PACKAGE CONTENTS")[0]
        assert len(whole.splitlines()) <= 100
        assert all(f"\n        {name} " in text for name in dir(sf) if name != "__version__")


def test_public_names_exist_and_are_documented() -> None:
    assert {"scan", "SpectrumCallback", "__version__"} < set(dir(sf))
    for name in dir(sf):
        thing = getattr(sf, name)
        if name != "__version__":
            assert inspect.getdoc(thing), name
            assert thing.__doc__ is not None, name
    for method in (sf.Scan.select, sf.Scan.save, sf.Scan.compare, sf.Selection.apply, sf.Selection.save):
        assert inspect.getdoc(method), method


def test_every_module_says_what_it_is_for() -> None:
    for name in module_names():
        assert inspect.getdoc(importlib.import_module(name)), name


def test_examples_in_docstrings_are_true() -> None:
    attempted = 0
    for name in module_names():
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 20
