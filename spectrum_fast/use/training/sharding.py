"""Configurations of DeepSpeed and FSDP2 made for a run, with the settings that partly frozen models need."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from spectrum_fast.errors import BackendUnavailableError, UsageError


def sharding_arguments(shard: str, offload: str, *, on_gpu: bool) -> dict[str, Any]:
    """Fields of ``TrainingArguments`` that divide the model.

    DeepSpeed's are those of ``zero.json``: what the trainer knows is left to it (``auto``), and
    ``zero_force_ds_cpu_optimizer`` is off so that torch's AdamW works wherever the states lie. With states offloaded
    from a GPU DeepSpeed's own CPU Adam is asked for, which is several times faster there and is compiled at first use.

    Args:
        shard: ``none``, ``zero2``, ``zero3`` or ``fsdp2``.
        offload: ``none``, ``optimizer``, or ``all`` (not under ``zero2``).
        on_gpu: whether the run computes on GPUs.
    """
    if shard == "none":
        return {}
    if shard == "fsdp2":
        return {"fsdp": True, "fsdp_config": {"version": 2, "cpu_offload": offload == "all"}}
    config: dict[str, Any] = json.loads(Path(__file__).with_name("zero.json").read_text(encoding="utf-8"))
    zero = config["zero_optimization"]
    zero |= {"stage": int(shard[-1]), "overlap_comm": on_gpu}
    for key in [key for key in zero if key.startswith("stage3_") and shard != "zero3"]:
        del zero[key]
    for part in {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "param")}[offload]:
        zero[f"offload_{part}"] = {"device": "cpu", "pin_memory": on_gpu}
    if offload != "none" and on_gpu:
        config["optimizer"] = {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")}
    return {"deepspeed": config}


def prepare_process_group(shard: str, *, deepspeed_given: bool = False) -> None:
    """Start what DeepSpeed needs before a model is loaded; a run without a launcher becomes a group of one.

    Args:
        shard: as above.
        deepspeed_given: the configuration brings a DeepSpeed configuration of its own.

    Raises:
        BackendUnavailableError: DeepSpeed is not installed.
        UsageError: FSDP2 with one process.
    """
    by_accelerate = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true")
    if shard == "none" and not deepspeed_given and not by_accelerate:
        return
    if shard == "fsdp2" and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise UsageError(
            "spectrum.shard fsdp2: expected several processes, found one; start them with torchrun --nproc_per_node N "
            "-m spectrum_fast train, or use shard none"
        )
    if "RANK" not in os.environ:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = port
    if shard == "fsdp2":
        return
    try:
        import deepspeed
    except ImportError as missing:
        raise BackendUnavailableError(
            "sharding by DeepSpeed: expected the package deepspeed, found none; install it: pip install deepspeed "
            "(after torch), or use shard fsdp2"
        ) from missing
    # from_pretrained under ZeRO-3 fails an assertion about the batch size unless the group exists before it.
    deepspeed.init_distributed(verbose=False)
