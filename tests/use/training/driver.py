"""Many short trainings in one group of processes: imports and the start of the group are paid for once.

``python driver.py CASES.json`` under torchrun or alone; a case is ``{"name", "config", "may_fail", "apart"}``.
Each leaves its output folder, and in it ``facts.json``: what DeepSpeed's own partitions hold, as seen from outside.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def run_cases(cases: list[dict[str, Any]]) -> bool:
    """Train them one after the other in this process; True if one failed."""
    import torch

    torch.set_num_threads(1)
    failed = False
    for case in cases:
        outcome = _run(case)
        failed |= outcome.get("error") is not None
        if os.environ.get("RANK", "0") == "0":
            folder = Path(case["config"]["output_dir"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "facts.json").write_text(json.dumps(outcome))
        _forget()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return failed


def _run(case: dict[str, Any]) -> dict[str, Any]:
    from transformers import Trainer

    import spectrum_fast.scanning.run as scanning
    from spectrum_fast.use.training import run as runs
    from spectrum_fast.use.training.arguments import parse_run

    facts: dict[str, Any] = {"name": case["name"], "error": None}
    scans, scan, first = [], scanning.scan, runs.from_first_process

    def counted(*arguments: Any, **options: Any) -> Any:
        scans.append(1)
        return scan(*arguments, **options)

    scanning.scan = counted
    original = Trainer.save_model

    def save_model(trainer: Any, *arguments: Any, **options: Any) -> None:
        facts.update(_partitions(trainer))
        original(trainer, *arguments, **options)

    Trainer.save_model = save_model  # type: ignore[method-assign]
    try:
        config = case["config"]
        if case.get("apart"):  # as if each process chose for itself
            runs.from_first_process = lambda make: make()
            config = {**config, "spectrum": {**config["spectrum"], "seed": int(os.environ["RANK"])}}
        runs.train(parse_run(config, case["name"]), overwrite=True, say=lambda _: None)
    except Exception as error:  # noqa: BLE001 - the parent process asserts on it
        facts["error"] = f"{type(error).__name__}: {error}"
        facts["traceback"] = traceback.format_exc()
    finally:
        Trainer.save_model = original  # type: ignore[method-assign]
        scanning.scan, runs.from_first_process = scan, first
    facts["scans"] = _everyones(len(scans))
    return facts


def _everyones(value: int) -> list[int]:
    import torch

    if not torch.distributed.is_initialized():
        return [value]
    found = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def _partitions(trainer: Any) -> dict[str, Any]:
    """Numbers in this process's share of the optimizer, and what torch's optimizer has states for."""
    import torch

    engine = getattr(trainer, "deepspeed", None)
    zero = getattr(engine, "optimizer", None)
    for attribute in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups"):
        groups = getattr(zero, attribute, None)
        if groups is not None:
            inner = zero.optimizer
            states = [
                value.numel()
                for state in inner.state.values()
                for key, value in state.items()
                if key == "exp_avg" and torch.is_tensor(value)
            ]
            return {"partition": sum(group.numel() for group in groups), "states": sum(states)}
    inner = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return {
        "partition": sum(p.numel() for group in inner.param_groups for p in group["params"]),
        "states": sum(state["exp_avg"].numel() for state in inner.state.values() if "exp_avg" in state),
    }


def _forget() -> None:
    """Let the next case configure DeepSpeed and accelerate anew."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]  # transformers leaves there what the last case was
    AcceleratorState._reset_state()
    GradientState._reset_state()
    with contextlib.suppress(AttributeError):
        unset_hf_deepspeed_config()
    gc.collect()


if __name__ == "__main__":
    import deepspeed.ops
    from trl import SFTTrainer  # noqa: F401 - what every case imports

    deepspeed.ops.__compatible_ops__ = {}  # sums of inference, a minute to compile, that no training calls
    gc.collect()
    gc.freeze()  # DeepSpeed and accelerate look for circles again and again
    sys.exit(run_cases(json.loads(Path(sys.argv[1]).read_text())))
