"""PiSSA: what a low-rank approximation takes out of a matrix becomes a trainable adapter, the rest its frozen base.

``W = W_res + B A`` with ``B = U sqrt(S)``, ``A = sqrt(S) V^T`` of the leading triplets, ``lora_alpha = r``. Source:
Meng et al. 2024, arXiv 2404.02948; PEFT's ``init_lora_weights="pissa"``, which takes a full SVD of each layer for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from spectrum_fast.choose.selection.export.low_ranks import add_rank_pattern
from spectrum_fast.choose.selection.model.conversion import Conversion
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.layout import ADAPTER_CONFIG, ADAPTER_PREFIX, ADAPTER_WEIGHTS
from spectrum_fast.read.checkpoint.naming import module_name, role
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.use.laser.targets import LaserTarget

FOLDER = "pissa_init"
"""The adapter's, in that of its base: the name that the authors' scripts look for."""


def pissa_targets(
    weights: Iterable[WeightPlan], model: nn.Module, ranks: int | Mapping[str, int]
) -> tuple[tuple[LaserTarget, ...], dict[str, str]]:
    """The matrices that an adapter can stand for, at their ranks, and the names that the running model has for them.

    Args:
        weights: of the checkpoint; embeddings and head, and what the model does not hold in an ``nn.Linear`` of its own
            (experts that it fuses), are left out.
        model: the running model, without weights.
        ranks: of all, or name in the running model -> rank, and then of these modules only.

    Raises:
        UsageError: nothing is left.
    """
    conversion = Conversion(model)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets: list[LaserTarget] = []
    names: dict[str, str] = {}
    for weight in weights:
        loaded = conversion.loaded_as(weight.main.name)
        alone = loaded is not None and not loaded.is_part and len(loaded.parameters) == 1
        if weight.decoder is not None or role(weight.name) != "other" or loaded is None or not alone:
            continue
        full, name = min(weight.main.shape), module_name(loaded.parameters[0])
        rank = ranks if isinstance(ranks, int) else ranks.get(name, full)
        if loaded.parameters[0] in linear and rank < full:
            targets.append(LaserTarget(weight.name, weight.main.name, None, rank))
            names[weight.name] = name
    if not targets:
        raise UsageError("expected a plain matrix that the model holds in an nn.Linear, and a smaller rank; found none")
    return tuple(targets), names


def split(u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor]:
    """``B = U sqrt(S)`` (m, r) and ``A = sqrt(S) V^T`` (r, n), float32."""
    root = s.sqrt().to(u.dtype)
    return (u * root).float().contiguous(), (root[:, None] * vh).float().contiguous()


def write_adapter(
    folder: Path, factors: Mapping[str, tuple[Tensor, Tensor]], names: Mapping[str, str], base: Path
) -> None:
    """Write the adapter's folder as PEFT does: ``PeftModel.from_pretrained(base, folder)`` reads it.

    Args:
        folder: to make.
        factors: module -> B and A.
        names: module -> its name in the running model.
        base: where the rest of the weights will be.
    """
    from safetensors.torch import save_file

    folder.mkdir()
    ranks = {names[module]: b.shape[1] for module, (b, _) in factors.items()}
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "target_modules": list(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": False,
    }
    tensors: dict[str, torch.Tensor] = {}
    for module, (b, a) in factors.items():
        stem = ADAPTER_PREFIX + names[module]
        tensors |= {f"{stem}.lora_B.weight": b, f"{stem}.lora_A.weight": a}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(add_rank_pattern(json.dumps(said), ranks), encoding="utf-8")
    shutil.copymode(folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS)  # safetensors writes for nobody else to read
