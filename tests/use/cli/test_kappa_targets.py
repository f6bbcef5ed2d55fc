"""``select --criterion kappa --for peft`` against PEFT's own selector, on models that transformers builds and saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import spectrum_fast as sf

from support import architectures

peft_helpers = pytest.importorskip("peft.helpers")


@pytest.mark.parametrize("name", ["llama", "qwen3", "mixtral", "gpt-oss"])
def test_the_targets_are_those_of_peft(inside, name: str, tmp_path: Path) -> None:
    """Dense, tied, experts fused by transformers, experts fused in the file; the scan is of the default criterion."""
    model = architectures.build(name)
    model.save_pretrained(tmp_path / "model")
    sf.scan(model if name == "mixtral" else tmp_path / "model", out=tmp_path / "scan.json")
    out = tmp_path / "k.json"
    for share in (20, 55):
        asked = ["--criterion", "kappa", "--top-percent", share, "--for", "peft"]
        run = inside("select", tmp_path / "scan.json", *asked, "--model", tmp_path / "model", "-o", out)
        assert run.returncode == 0, run.stderr
        expected = peft_helpers.find_kappa_target_modules(model, top_p=share / 100, show_progress=False)
        assert json.loads(out.read_text()) == expected


def test_of_a_scan_that_lacks_a_module_nothing_is_taken(inside, tmp_path: Path) -> None:
    architectures.build("llama").save_pretrained(tmp_path / "model")
    sf.scan(tmp_path / "model", exclude=["lm_head"], out=tmp_path / "scan.json")
    asked = ["--criterion", "kappa", "--for", "peft", "--model", tmp_path / "model", "-o", tmp_path / "k.json"]
    run = inside("select", tmp_path / "scan.json", *asked)
    assert run.returncode == 2
    assert "expected a score of lm_head" in run.stderr
    assert not (tmp_path / "k.json").exists()


def test_of_gate_and_up_the_condition_of_both_together_is_not_made_up(inside, tmp_path: Path) -> None:
    """Mixtral's files hold them apart, the running model has them in one matrix an expert."""
    architectures.build("mixtral").save_pretrained(tmp_path / "model")
    sf.scan(tmp_path / "model", out=tmp_path / "scan.json")
    asked = ["--criterion", "kappa", "--for", "peft", "--model", tmp_path / "model"]
    run = inside("select", tmp_path / "scan.json", *asked)
    assert run.returncode == 2
    assert "joins 8 matrices of the checkpoint in 4" in run.stderr
    assert not run.stdout


def test_a_scan_by_condition_number_is_as_sure_as_asked(tmp_path: Path) -> None:
    """Ever worse conditioned, until float64 SVD is needed; each within the tolerance of the truth."""
    g = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(256, 256, generator=g, dtype=torch.float64)).Q for _ in range(2))
    methods = []
    for condition in (3.0, 1e4, 1e8):
        weight = u * torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), 256, dtype=torch.float64) @ v
        found = sf.spectrum(weight.float(), criterion="kappa", tolerance=1e-3)
        s = torch.linalg.svdvals(weight.float().double())
        expected = s[0] / (s[-1] + 1e-8)
        assert found.error_bound <= 1e-3
        assert found.snr == pytest.approx(1 / expected.item(), rel=found.error_bound)
        methods.append(found.method)
    assert methods == ["band-float64", "band-float64", "svd-float64"]
