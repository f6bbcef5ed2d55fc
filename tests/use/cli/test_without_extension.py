"""Where the compiled extension is missing, and triton too, a scan says what that costs and scores as with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.doctor import examine
from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.measure.ops.dispatch import choose_backend, native_problem, use_backend

from support.matrices import gaussian, trained_like
from support.processes import script


def test_a_scan_says_once_what_it_costs_and_is_right(tmp_path: Path) -> None:
    weights = {
        f"model.layers.{layer}.mlp.up_proj.weight": weight.to(torch.bfloat16)
        for layer, weight in enumerate((gaussian(300, 420), trained_like(260, 300, (9.0, 4.0), seed=1)))
    }
    save_file(weights, tmp_path / "model.safetensors")
    out = tmp_path / "scan.json"
    words = ["spectrum_fast._native,triton", "scan", str(tmp_path), "--out", str(out)]
    done = subprocess.run([sys.executable, script("command_without"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the compiled extension does not load") == 1
    expected = {module.name: module for module in sf.scan(tmp_path).modules}
    for module in sf.load_scan(out).modules:
        other = expected[module.name]
        assert module.method == "svd-float64"
        assert module.snr is not None
        assert other.snr is not None
        assert abs(module.snr - other.snr) <= (module.error_bound + other.error_bound) * other.snr


def test_whoever_asks_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``doctor`` and by ``--backend native`` alike: a wheel needs no compiler, and most users have no checkout."""
    monkeypatch.setitem(sys.modules, "spectrum_fast._native", None)
    native_problem.cache_clear()
    try:
        remedy = "install a wheel that holds it, or a C\\+\\+20 compiler"
        with use_backend("native"), pytest.raises(BackendUnavailableError, match=remedy):
            choose_backend("gram", "cpu")
        assert remedy.replace("\\", "") in examine()["native kernels"]
    finally:
        native_problem.cache_clear()
