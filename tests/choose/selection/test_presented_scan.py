"""A scan as a Python object: sequence, line, table, frame, pictures; and in a notebook."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.scanning.step import ScanProgress, notebook_progress

from support.processes import script

NAMES = [f"layers.{layer}.{kind}" for layer in range(3) for kind in ("k", "q")]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> sf.Scan:
    g = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("model<b>")
    save_file({f"{name}.weight": torch.randn(20, 30, generator=g) for name in NAMES}, folder / "model.safetensors")
    return sf.scan(folder, spectra=True)


def test_a_scan_is_a_sequence_of_modules_found_by_name(scan: sf.Scan) -> None:
    assert len(scan) == 6
    assert [module.name for module in scan] == NAMES
    assert scan["layers.1.q"] is scan["layers.1.q.weight"] is scan.module("layers.1.q")
    with pytest.raises(KeyError, match=r"no module 'layers\.1\.qq'; nearest: layers\.1\.q"):
        scan["layers.1.qq"]
    assert "layers.1.q" in scan
    assert scan["layers.1.q"] in scan
    assert "layers.9.q" not in scan
    with pytest.raises(KeyError, match="no module 0"):
        scan[0]  # type: ignore[index]
    tied = replace(scan, ties={"head": "layers.0.k"})
    assert tied["head"].name == "layers.0.k"


def test_one_line_and_a_table(scan: sf.Scan) -> None:
    assert repr(scan) == f"<Scan of {scan.model}: 6 modules by spectrum>"
    assert repr(scan.select(50)) == f"<Selection of {scan.model}: top 50 %, 2 modules of 6 in 2 groups>"
    shown = scan._repr_html_()
    assert "<b>" not in shown
    assert shown.count("<tr>") == 3
    assert max((module for module in scan if module.type == "q"), key=lambda one: one.rank_value).name in shown


def test_a_frame_has_a_column_a_quantity(scan: sf.Scan) -> None:
    pytest.importorskip("pandas")
    frame = scan.to_frame()
    assert list(frame.index) == NAMES
    assert list(frame["layer"]) == [0, 0, 1, 1, 2, 2]
    module = scan["layers.2.k"]
    row = frame.loc["layers.2.k"]
    assert (row["snr"], row["s_max"], row["type"]) == (module.snr, module.s_max, "k")
    assert row["stable_rank"] == pytest.approx((module.frobenius_norm / module.s_max) ** 2)
    assert {"kappa", "mp_rank", "effective_rank", "alpha", "spectral_norm"} <= set(frame.columns)
    bare = replace(scan, modules=tuple(replace(one, singular_values=None) for one in scan))
    assert "alpha" not in bare.to_frame().columns


def test_pictures(scan: sf.Scan) -> None:
    pytest.importorskip("plotly")
    (places,) = scan.plot().data
    assert list(places.y) == ["k", "q"]
    assert sorted(places.z[0]) == [0, 0.5, 1]
    (alone,) = replace(scan, modules=scan.modules[:2]).plot().data
    assert [list(row) for row in alone.z] == [[1], [1]]  # each the best of its type
    module = scan["layers.0.q"]
    assert module.singular_values is not None
    (line,) = module.plot().data
    assert list(line.y) == list(module.singular_values.values)
    (threshold,) = module.plot().layout.shapes
    assert (threshold.y0, threshold.line.width, threshold.opacity) == (
        module.threshold,
        1,
        1,
    )  # none by the template
    (bars,) = replace(module, singular_values=None).plot().data
    assert module.histogram is not None
    assert sum(height * width for height, width in zip(bars.y, bars.width, strict=True)) == pytest.approx(20)


def test_a_bar_in_a_notebook_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notebook_progress() is None
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    show = notebook_progress()
    assert show is not None
    show(ScanProgress("", 0, 2, 0, 10, 0.0))
    show(ScanProgress("b", 2, 2, 10, 10, 1.0))


def test_a_scan_is_read_without_torch(tmp_path: Path, scan: sf.Scan) -> None:
    pytest.importorskip("pandas")
    scan.save(tmp_path / "scan.json")
    run = [sys.executable, script("look_at_a_scan"), str(tmp_path / "scan.json")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "False"
