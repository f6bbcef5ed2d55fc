"""The examples run as they stand, on a small checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import load_scan, load_selection

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("examples"), like="tiny", layers=4).path


def run(name: str, *arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scan(checkpoint: Path, tmp_path: Path) -> None:
    said = run("scan.py", checkpoint, tmp_path / "out", cwd=tmp_path)
    assert "mlp.up_proj: 4 modules, best model.layers." in said
    scan = load_scan(tmp_path / "out" / "scan.json")
    selection = load_selection(tmp_path / "out" / "unfrozen.yaml")
    assert {module.name for module in selection.modules} == {module.name for module in scan.select(25).modules}
    assert len(json.loads((tmp_path / "out" / "targets.json").read_text())) == 7


def test_select_and_train(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    said = run("select_and_train.py", checkpoint, 2, cwd=tmp_path)
    losses = [float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("step ")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert "8 parameters moved, all of them selected: True" in said
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_runs_and_draws(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(EXAMPLES / "explore.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    monkeypatch.setenv("MODEL", str(checkpoint))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "mpl"))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = "".join(output.get("text", "") for output in outputs)
    assert "29 modules, 8 types, complete: True" in text
    assert "share of singular values above the noise edge" in text
