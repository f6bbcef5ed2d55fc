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
