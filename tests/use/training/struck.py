"""``spectrum-fast train`` with one process that kills itself at a chosen moment: ``python struck.py train run.yaml``.

STRIKE in the environment says which: ``{"rank", "step"}`` in the middle of a step, gradients made and not yet applied;
``{"rank", "file", "step"}`` when that many files of the checkpoint of a step have been begun, the last one cut in half;
``{"rank", "rename", "step"}`` just before its folder takes its place. Step 0 stands for the model at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    import torch

    torch.set_num_threads(1)
    strike = json.loads(os.environ.get("STRIKE", "{}"))
    if strike and os.environ.get("RANK", "0") == str(strike["rank"]):
        _arm(strike)
    from spectrum_fast.use.cli import main as command

    command()


def _arm(strike: dict[str, Any]) -> None:
    folder = f"/checkpoint-{strike['step']}/" if strike["step"] else "/_saving/model/"
    if "file" in strike:
        _arm_files(folder, strike["file"])
    elif "rename" in strike:
        real = os.rename

        def rename(source: Any, target: Any, **options: Any) -> None:
            if folder in f"{source}/" and "/_saving/" in f"{source}":
                _die()
            real(source, target, **options)

        os.rename = rename
    else:
        _arm_step(strike["step"])


def _arm_files(folder: str, count: int) -> None:
    """Every file that torch or safetensors writes into the folder counts."""
    import torch
    import transformers.modeling_utils as models

    left = count

    def wrap(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(content: Any, path: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal left
            result = write(content, path, *arguments, **options)
            if folder in str(path):
                left -= 1
                if left == 0:
                    os.truncate(path, Path(path).stat().st_size // 2)
                    _die()
            return result

        return written

    torch.save = wrap(torch.save)
    models.safe_save_file = wrap(models.safe_save_file)


def _arm_step(step: int) -> None:
    from trl import SFTTrainer

    real = SFTTrainer.training_step

    def training_step(trainer: Any, *arguments: Any, **options: Any) -> Any:
        result = real(trainer, *arguments, **options)
        if trainer.state.global_step + 1 == step:
            _die()
        return result

    SFTTrainer.training_step = training_step


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.argv[0] = "spectrum-fast"
    main()
