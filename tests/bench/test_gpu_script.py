"""The GPU machine's script runs every test that only a GPU can run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_THE_EMULATION = "tests/emulated_cuda/"


def test_no_test_of_a_gpu_is_left_out() -> None:
    listed = re.findall(r"tests/[\w/*.]+", (ROOT / "bench" / "gpu.sh").read_text(encoding="utf-8"))
    run = {found for pattern in listed for found in ROOT.glob(pattern)}
    assert len(run) >= len(listed), "a path that is not there"
    marked = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.gpu\b|\bWITH_GPU\b|\bon_gpu\b", path.read_text(encoding="utf-8"))
    ]
    assert len(marked) > 10
    left_out = [
        path
        for path in (one.relative_to(ROOT) for one in marked)
        if not {ROOT / path, *(ROOT / above for above in path.parents)} & run
        and not path.as_posix().startswith(OF_THE_EMULATION)
    ]
    assert [path.as_posix() for path in left_out if ROOT / path != Path(__file__)] == []
