"""Only one module names what systems do not share, and a scan runs where Linux's own ways are gone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.system import read_at

from support.elsewhere import NO_MODULES_ON_WINDOWS, NOT_ON_WINDOWS
from support.matrices import gaussian

ROOT = Path(__file__).resolve().parents[1]


def named_outside(text: str) -> list[str]:
    """Names of one system in a module's text: imports where it is loaded, attributes of ``os`` anywhere."""
    tree = ast.parse(text)
    guarded = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.Try))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in guarded:
            found += [alias.name for alias in node.names if alias.name in NO_MODULES_ON_WINDOWS]
        if isinstance(node, ast.ImportFrom) and id(node) not in guarded and node.module in NO_MODULES_ON_WINDOWS:
            found.append(node.module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            found += [node.attr] if node.attr in NOT_ON_WINDOWS else []
    return found


def test_one_module_names_what_systems_do_not_share() -> None:
    files = sorted((ROOT / "spectrum_fast").rglob("*.py"))
    found = {path.name: named_outside(path.read_text(encoding="utf-8")) for path in files if path.name != "system.py"}
    assert not {name: names for name, names in found.items() if names}


def test_the_look_at_names_can_fail() -> None:
    assert named_outside("import fcntl\nimport os\nx = os.O_DIRECT\n") == ["fcntl", "O_DIRECT"]
    assert named_outside("def f():\n    import fcntl\n") == []


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_a_scan_runs_without_what_linux_alone_has(system: str, tmp_path: Path) -> None:
    save_file({"model.layers.0.mlp.up_proj.weight": gaussian(200, 260).half()}, tmp_path / "model.safetensors")
    out = tmp_path / "scan.json"
    script = ROOT / "tests" / "support" / "elsewhere.py"
    command = [sys.executable, str(script), system, "scan", str(tmp_path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (module,), (expected,) = sf.load_scan(out).modules, sf.scan(tmp_path).modules
    assert module.digest == expected.digest
    assert module.snr == pytest.approx(expected.snr, rel=2e-4)


def test_a_read_at_an_offset_needs_no_preadv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(200)))
    monkeypatch.delattr(os, "preadv")
    descriptor = os.open(path, os.O_RDONLY)
    buffer = bytearray(64)
    assert [read_at(descriptor, memoryview(buffer), place) for place in (150, 200, 3)] == [50, 0, 64]
    assert buffer == bytes(range(3, 67))
    os.close(descriptor)
