"""``spectrum-fast train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; docs/training.md lists the keys.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key (spectrum.method=full); repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train into a folder that holds a finished run.")
    ] = False,
) -> None:
    """Train the selected modules as a configuration file says.

    The file holds fields of TRL's SFTConfig and ModelConfig, and a section
    `spectrum:`. Works under torchrun, accelerate launch and deepspeed too.

    \b
    Example: spectrum-fast train run.yaml --set spectrum.method=spectrum
             torchrun --nproc_per_node 8 -m spectrum_fast train run.yaml
    """
    import contextlib
    import os
    import sys
    import warnings

    if not sys.warnoptions:  # notes from one library to another's authors, hundreds of lines a run
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", module="_distutils_hack")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed tells stdout that it found that out by itself
    from spectrum_fast.use.training.arguments import read_run
    from spectrum_fast.use.training.run import train as run_training

    with contextlib.redirect_stdout(sys.stderr):  # the trainer prints its log; stdout is for data
        run_training(read_run(config, changes or ()), overwrite=overwrite)
