"""One of two processes that hold a model under DeepSpeed and report every tensor that makes up its state.

``torchrun --nproc_per_node 2 deepspeed_worker.py FOLDER OUT`` trains the checkpoint in FOLDER for one step under each
stage and type, and rank r writes OUT/r.json.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import transformers

from spectrum_fast.errors import UsageError
from spectrum_fast.use.training.trainable import require_changeable

TRAINED = ("embed_tokens", "layers.1.", "layers.2.mlp.down_proj", "layers.3.input_layernorm")
HIDDEN = 64


def measure(folder: str, stage: int, dtype: torch.dtype) -> dict[str, int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in TRAINED))
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1]},
        {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": HIDDEN**2,  # transformers' sizes for auto
            "stage3_param_persistence_threshold": 10 * HIDDEN,
        },
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups), config=config)
    try:
        require_changeable(engine.optimizer, processes=1)
        refused = 0
    except UsageError:
        refused = 1
    tokens = torch.arange(32)[None]
    loss = engine(input_ids=tokens, labels=tokens).loss
    engine.backward(loss)
    found = {"gradients": gradient_bytes(engine.optimizer, stage), "reselection_refused": refused}
    engine.step()
    optimizer = engine.optimizer
    masters = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    states = [optimizer.optimizer.state[master] for master in masters]
    found |= {
        "weights": weight_bytes(engine.module, stage),
        "master": distinct(masters, beside=partitions(engine.module) if stage == 3 else ()),
        "moments": distinct([state[key] for state in states for key in ("exp_avg", "exp_avg_sq")]),
    }
    if stage == 3:
        found["kept_whole"] = sum(size(p.data) for p in engine.module.parameters() if p.ds_persist)
        found["buffer"] = sum(size(bucket.buffer) for bucket in optimizer.ipg_buckets.values())
    engine.destroy()
    return found


def partitions(module: Any) -> list[torch.Tensor]:
    return [parameter.ds_tensor for parameter in module.parameters()]


def weight_bytes(module: Any, stage: int) -> int:
    """Distinct storages of the weights that lie on this process (ZeRO-3: of their parts)."""
    return distinct(partitions(module) if stage == 3 else [p.data for p in module.parameters()])


def gradient_bytes(optimizer: Any, stage: int) -> int:
    if stage == 3:
        return size(optimizer.grad_partitions_flat_buffer)
    return sum(size(gradient) for group in optimizer.averaged_gradients.values() for gradient in group)


def distinct(tensors: Any, beside: Any = ()) -> int:
    """Bytes of the storages of tensors, each once, those of ``beside`` left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in beside}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(count for pointer, count in storages.items() if pointer not in known)


def size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def main() -> None:
    folder, out = sys.argv[1:3]
    deepspeed.ops.__compatible_ops__ = {}  # sums of inference, a minute to compile, that no training calls
    gc.freeze()  # DeepSpeed looks for circles again and again
    deepspeed.init_distributed(dist_backend="gloo")
    found = {
        f"{stage} {name}": measure(folder, stage, dtype)
        for stage in (2, 3)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }
    rank = torch.distributed.get_rank()
    Path(out, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that takes its group down around them; all is written


if __name__ == "__main__":
    main()
