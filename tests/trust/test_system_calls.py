"""A scan of an untrusted repository under a system-call trace: what the process really opens, writes and starts."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

_CALLS = (
    "openat,open,creat,execve,execveat,connect,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,symlink"
)
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")


class _Bomb:
    """Unpickling it leaves a trace on the disk."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.mark,)


def write_untrusted(folder: Path, mark: Path) -> None:
    """A checkpoint with everything beside its weights that other loaders run."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    weights = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(40, 60, generator=generator) for i in range(3)}
    save_file(weights, folder / "model.safetensors")
    for name in ("pytorch_model.bin", "optimizer.pt", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(_Bomb(str(mark))))
    code = f"import os\nos.mkdir({str(mark)!r})\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "sitecustomize.py", "torch.py"):
        (folder / name).write_text(code)
    auto_map = {"AutoConfig": "configuration_evil.EvilConfig", "AutoModel": "modeling_evil.EvilModel"}
    config = {"model_type": "evil", "auto_map": auto_map, "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(config))


_SCRIPT = Path(sys.executable).with_name("spectrum-fast")
_WAYS = {"command": [str(_SCRIPT)], "module": [sys.executable, "-m", "spectrum_fast"]}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (apt install strace)")
def test_a_scan_runs_nothing_reads_no_code_and_writes_only_its_output(tmp_path: Path, way: str) -> None:
    model, out, mark, trace = tmp_path / "model", tmp_path / "out" / "scan.json", tmp_path / "mark", tmp_path / "trace"
    temporary = tmp_path / "temporary"  # where Python's tempfile makes sure that it can write
    write_untrusted(model, mark)
    out.parent.mkdir()
    temporary.mkdir()
    command = [*_WAYS[way], "scan", ".", "--out", str(out), "--quiet"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    traced = ["strace", "-f", "-qq", "-e", f"trace={_CALLS}", "-o", str(trace), *command]
    # In the checkpoint's own folder, where a careless import would find its files first.
    done = subprocess.run(traced, capture_output=True, text=True, cwd=model, env=environment, check=False)
    if "ptrace" in done.stderr.lower() and "permitted" in done.stderr.lower():
        pytest.skip("this machine forbids tracing")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(out.read_text())["modules"]) == 3
    lines = [line for line in trace.read_text(errors="replace").splitlines() if " = -1 " not in line]
    opened = [line for line in lines if re.search(r"\bopen(at)?\(", line)]
    assert any("model.safetensors" in line for line in opened), "the trace saw nothing"

    paths = [path for line in opened for path in re.findall(r'"([^"]*)"', line)]
    of_model = {Path(path).name for path in paths if not path.startswith("/") or path.startswith(str(model))}
    assert of_model - {"model", ""} == {"model.safetensors", "config.json"}
    started = [line for line in lines if "execve" in line]
    assert len(started) == 1, started
    assert not [line for line in lines if "connect(" in line and "AF_INET" in line]
    written = [
        line for line in lines if _WRITES.search(line) or re.search(r"\b(rename|unlink|mkdir|link|symlink)", line)
    ]
    foreign = [line for line in written if not _is_expected(line, out.parent, temporary)]
    assert not foreign, "\n".join(foreign)
    assert not mark.exists()
    assert [path.name for path in out.parent.iterdir()] == ["scan.json"]
    assert not list(temporary.iterdir())


def _is_expected(line: str, *folders: Path) -> bool:
    return '"/dev/' in line or any(f'"{folder}/' in line for folder in folders)
