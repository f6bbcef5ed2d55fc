"""Configurations of DeepSpeed and FSDP2 made for a run, with the settings that partly frozen models need."""

from __future__ import annotations

import os
import socket
from typing import Any

from spectrum_fast.errors import BackendUnavailableError, UsageError
from spectrum_fast.use.training.arguments import SpectrumArguments


def sharding_arguments(section: SpectrumArguments, *, on_gpu: bool) -> dict[str, Any]:
    """Fields of ``TrainingArguments`` that divide the model as the section says.

    Args:
        section: its ``shard`` and ``offload``.
        on_gpu: whether the run computes on GPUs.
    """
    if section.shard == "fsdp2":
        return {"fsdp": True, "fsdp_config": {"version": 2, "cpu_offload": section.offload == "all"}}
    if section.shard in ("zero2", "zero3"):
        return {"deepspeed": deepspeed_config(int(section.shard[-1]), section.offload, on_gpu=on_gpu)}
    return {}


def deepspeed_config(stage: int, offload: str = "none", *, on_gpu: bool = True) -> dict[str, Any]:
    """A DeepSpeed configuration for ZeRO ``stage``; what the trainer knows is left to it (``auto``).

    ``zero_force_ds_cpu_optimizer`` is off so that torch's AdamW works wherever the states lie; with states offloaded
    from a GPU DeepSpeed's own CPU Adam is asked for, which is several times faster there and is compiled at first use.

    Args:
        stage: 2 or 3.
        offload: ``none``, ``optimizer``, or ``all`` (stage 3 only).
        on_gpu: whether the run computes on GPUs.
    """
    host = {"device": "cpu", "pin_memory": on_gpu}
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if offload in ("optimizer", "all"):
        zero["offload_optimizer"] = dict(host)
    if offload == "all":
        zero["offload_param"] = dict(host)
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "steps_per_print": 10**9,  # the trainer's log says it
    }
    if offload != "none" and on_gpu:
        config["optimizer"] = {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        }
    return config


def prepare_process_group(shard: str, *, deepspeed_given: bool = False) -> None:
    """Start what DeepSpeed needs before a model is loaded; a run without a launcher becomes a group of one.

    Args:
        shard: of the section.
        deepspeed_given: the configuration brings a DeepSpeed configuration of its own.

    Raises:
        BackendUnavailableError: DeepSpeed is not installed.
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
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(_free_port())
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
