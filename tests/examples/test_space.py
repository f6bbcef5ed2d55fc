"""The space answers visitors over HTTP: from the library, or by a scan of a hub of which it keeps nothing."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import spectrum_fast as sf
from spectrum_fast.choose.library import open_library

from support.hub_server import COMMIT, TOKEN, serve_hub
from support.processes import script

ROOT = Path(__file__).parents[2]
SITE = ROOT / "out" / "space-site"
"""Made by ``make space-site``; gradio is no dependency of ours."""

pytest.importorskip("obstore")
pytest.importorskip("plotly")
if find_spec("gradio") is None and not (SITE / "gradio").is_dir():
    pytest.skip("gradio is not installed (make space-site)", allow_module_level=True)


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{i}.q_proj.weight": torch.randn(40, 60, generator=generator) for i in range(4)}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with the scan of a model that no hub has."""
    folder = tmp_path / "library"
    folder.mkdir()
    (tmp_path / "filed.safetensors").write_bytes(save(weights(1)))
    scan = sf.scan(tmp_path / "filed.safetensors")
    open_library(str(folder)).add(scan, model="org/filed")
    return folder


def ask(tmp_path: Path, files: dict[str, bytes], *questions: str, **environment: str) -> list[dict]:
    """What the space answers; nothing of a model is on disk afterwards."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    with serve_hub(files) as hub:
        done = subprocess.run(
            [sys.executable, script("ask_a_space"), str(SITE), str(ROOT / "examples" / "space"), *questions],
            env=hub.environment(home)
            | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "GRADIO_ANALYTICS_ENABLED": "False"}
            | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    kept = [path for place in (home, temporary) for path in place.rglob("*") if path.is_file()]
    end = files["model.safetensors"][-64:]
    assert [path.name for path in kept if end in path.read_bytes() or path.suffix == ".safetensors"] == []
    return json.loads(done.stdout.splitlines()[-1])


BAD = ("/etc/passwd", "../..", "https://host/a", "s3://bucket/a", "org", "", "library/folder", "<b>x</b>")


def test_a_model_is_answered_from_the_library_or_scanned_and_not_kept(tmp_path: Path, library: Path) -> None:
    (library / "folder").mkdir()  # what is on the machine is no model of the hub
    files = {"config.json": b"{}", "model.safetensors": save(weights(2)), "pytorch_model.bin": b"\x80\x04"}
    questions = ["org/filed spectrum", "org/name mp", "org/filed mp", "org/name alpha", *(f"{bad} mp" for bad in BAD)]
    filed, scanned, *refused = ask(tmp_path, files, *questions, LIBRARY=str(library))
    assert filed["said"] == "4 matrices. From the library, a scan of filed."
    assert filed["scan"] == json.loads((library / "scan_org-filed.spectrum.json").read_text(encoding="utf-8"))
    said = f"4 matrices. Scanned now: org/name at commit {COMMIT}, read over the network and not stored."
    assert scanned["said"] == said
    assert {module["name"]: module["snr"] for module in scanned["scan"]["modules"]} == {
        name.removesuffix(".weight"): pytest.approx(sf.spectrum(weight, criterion="mp").snr, rel=1e-4)
        for name, weight in weights(2).items()
    }
    frame, _, page = scanned["shown"].partition(' srcdoc="')
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert html.unescape(page.removesuffix('"></iframe>')) == scanned["report"]
    other, criterion, *bad = (html.unescape(answer["error"]) for answer in refused)
    assert other.startswith("hub id 'org/filed' (revision 'main'): the hub ")
    assert criterion.startswith("Value: 'alpha'")  # gradio's own words
    wanted = "expected a model of the hub, org/name or org/name@revision, found "
    assert bad == [f"{wanted}{model!r}" for model in BAD]


@pytest.mark.slow
def test_a_model_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": save(weights(2))}
    (answer,) = ask(tmp_path, files, "org/name@main spectrum", LARGEST_GIB="1e-5")
    assert answer["error"].startswith("org/name@main: expected at most 1e-05 GiB of matrices to read here, found 0.0; ")
