"""``spectrum-fast check``."""

from __future__ import annotations

from pathlib import Path

from spectrum_fast import load_scan


def test_differences_are_told_and_are_exit_code_1(inside, scanned: Path, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "unfrozen.yaml"
    load_scan(scanned).select(25).save(path, "axolotl")
    done = inside("check", path, tiny)
    assert (done.returncode, done.stderr) == (1, "")
    assert "readme leaves frozen 1: model.embed_tokens.weight" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert inside("check", path, tiny, "--reader", "axolotl", "--reader", "peft").returncode == 0
    refused = inside("check", path, tiny, "--reader", "unsloth")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_misspelt_name_is_told_and_mended(inside, tiny: Path, tmp_path: Path) -> None:
    path, fixed = tmp_path / "names.txt", tmp_path / "fixed.txt"
    path.write_text("model.layers.0.mlp.up_prj\n")
    done = inside("check", path, tiny, "--reader", "spectrum-fast")
    assert done.returncode == 1
    assert "model.layers.0.mlp.up_prj matches nothing; nearest: model.layers.0.mlp.up_proj" in done.stdout
    mended = inside("check", path, tiny, "--fix", fixed)
    assert (mended.returncode, mended.stdout) == (0, "")
    assert "model.layers.0.mlp.up_prj -> model.layers.0.mlp.up_proj" in " ".join(mended.stderr.split())
    assert fixed.read_text() == "model.layers.0.mlp.up_proj\n"
