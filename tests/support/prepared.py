"""Scripts in processes forked from one that has imported torch: a start takes milliseconds, not two seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path


def run_prepared(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What ``python SCRIPT ARGUMENTS`` does, with one thread and these variables; nothing but torch is loaded yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_be_the_script, args=(folder, script, arguments, variables))
        process.start()
        process.join()
        said = [Path(folder, stream).read_text() for stream in ("stdout", "stderr")]
    assert process.exitcode is not None
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, *said)


def _be_the_script(folder: str, script: str, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
    import torch

    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, stream), os.O_WRONLY | os.O_CREAT), descriptor)
    torch.set_num_threads(1)
    os.environ.update(variables)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
