"""A run's own configuration file, as the planner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.files import read_text
from spectrum_fast.measure.scoring.strict_json import parse_json
from spectrum_fast.use.training.arguments import read_run

_DTYPES = {None: "fp32", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "auto": "bf16"}
_OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_apex_fused"), "adamw"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), "adamw-8bit"),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), "lion"),
    "sgd": "sgd",
}


def describe_run(path: str | Path, gpus: int) -> tuple[str, TrainingSetup, dict[str, Any]]:
    """The model of a run, its setup, and what it trains: keywords of ``plan_memory``.

    Raises:
        UsageError: the file is wrong, or holds something that a plan does not know.
    """
    run = read_run(path)
    values, section = run.values, run.spectrum
    values["optim"] = str(getattr(values["optim"], "value", values["optim"]))
    for key, known in (("dtype", _DTYPES), ("optim", _OPTIMIZERS)):
        if values[key] not in known:
            raise UsageError(f"{run.source}: {key} {values[key]}: a plan knows {', '.join(map(str, known))}")
    division = _division(values)
    narrow = values["bf16"] is not False or values["fp16"]  # TRL's default is bfloat16
    setup = TrainingSetup(
        method=section.method,
        gpus=gpus,
        **division,
        autocast=bool(narrow),
        dtype=("fp16" if values["fp16"] else "bf16") if division["zero"] and narrow else _DTYPES[values["dtype"]],
        optimizer=_OPTIMIZERS[values["optim"]],
        seq_len=values["max_length"] or 1024,
        micro_batch=values["per_device_train_batch_size"],
        gradient_accumulation=values["gradient_accumulation_steps"],
        checkpointing="layer" if values["gradient_checkpointing"] else "none",
        attention="eager" if values["attn_implementation"] == "eager" else "flash",
        loss="fused" if values["use_liger_kernel"] else "logits",
        lora_rank=values["lora_r"],
        lora_dropout=values["lora_dropout"],
        double_quantisation=values["use_bnb_nested_quant"],
    )
    return run.model_name, setup, trained_by(section.scan, section.selection, section.top_percent, section.always)


def trained_by(
    scan: str | Path | None, selection: str | Path | None, top_percent: float, always: str | Sequence[str]
) -> dict[str, Any]:
    """What a scan's or a selection's file has trained: keywords of ``plan_memory``."""
    loaded = {"scan": scan and load_scan(scan), "selection": selection and load_selection(selection)}
    return loaded | {"top_percent": top_percent, "always": always}


def _division(values: dict[str, Any]) -> dict[str, Any]:
    """ZeRO's stage or FSDP2, and what lies in the host's memory, of the configurations of DeepSpeed and FSDP."""
    zero = _configuration(values["deepspeed"]).get("zero_optimization", {})
    away = [part for part in ("optimizer", "param") if zero.get(f"offload_{part}", {}).get("device") == "cpu"]
    if values["fsdp"] and _configuration(values["fsdp_config"]).get("cpu_offload"):
        away = ["param"]
    offload = "all" if "param" in away else "optimizer" if away else "none"
    return {"zero": zero.get("stage", 0), "fsdp2": bool(values["fsdp"]), "offload": offload}


def _configuration(given: Any) -> dict[str, Any]:
    return parse_json(read_text(given, error=UsageError), given, UsageError) if isinstance(given, str) else given or {}
