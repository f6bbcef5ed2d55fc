"""The memory of a run, planned from its own configuration file."""

from __future__ import annotations

from pathlib import Path

from spectrum_fast.choose.planner.memory import MemoryPlan, fit_percent, plan_memory
from spectrum_fast.choose.planner.model_shape import read_model_shape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.use.training.arguments import RunArguments, read_run

_DTYPES = {None: "fp32", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "auto": "bf16"}
_OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_apex_fused"), "adamw"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), "adamw-8bit"),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), "lion"),
    "sgd": "sgd",
}


def plan_run(path: str | Path, gpus: int, fit_gib: float | None = None) -> MemoryPlan:
    """Plan the run of a configuration file.

    Args:
        path: the file that ``spectrum-fast train`` reads.
        gpus: processes, one a GPU.
        fit_gib: memory of a GPU; the largest share that fits is then looked for, whatever the file says.

    Raises:
        UsageError: the file is wrong, or holds something that the plan does not know.
        SelectionError: not even the smallest share fits.
        CheckpointError: the model cannot be read or run on fake tensors.
    """
    run = read_run(path)
    section, setup = run.spectrum, describe_setup(run, gpus)
    shape = read_model_shape(open_checkpoint(run.model_name))
    scan = None if section.scan is None else load_scan(section.scan)
    if fit_gib is not None:
        return fit_percent(shape, setup, int(fit_gib * 2**30), scan=scan, always=section.always)
    selection = None if section.selection is None else load_selection(section.selection)
    return plan_memory(
        shape, setup, scan=scan, selection=selection, top_percent=section.top_percent, always=section.always
    )


def describe_setup(run: RunArguments, gpus: int) -> TrainingSetup:
    """A run as the planner sees it.

    Raises:
        UsageError: it holds something that the plan does not know.
    """
    values, section = vars(run.parser.parse_known_args([])[0]), run.spectrum
    optimizer = str(getattr(values["optim"], "value", values["optim"]))
    for key, known in (("dtype", _DTYPES), ("optim", _OPTIMIZERS)):
        found = optimizer if key == "optim" else values[key]
        if found not in known:
            names = ", ".join(str(name) for name in known)
            raise UsageError(f"{run.source}: {key} {found}: a plan knows {names}")
    if values["deepspeed"] or values["fsdp"]:
        raise UsageError(f"{run.source}: a plan knows spectrum.shard, not a configuration of one's own; give --zero")
    zero = {"zero2": 2, "zero3": 3}.get(section.shard, 0)
    narrow = values["bf16"] is not False or values["fp16"]  # TRL's default is bfloat16
    return TrainingSetup(
        method=section.method,
        gpus=gpus,
        zero=zero,
        fsdp2=section.shard == "fsdp2",
        autocast=bool(narrow),
        dtype=("fp16" if values["fp16"] else "bf16") if zero and narrow else _DTYPES[values["dtype"]],
        optimizer=_OPTIMIZERS[optimizer],
        offload=section.offload,
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
