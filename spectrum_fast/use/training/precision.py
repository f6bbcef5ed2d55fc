"""Small updates are not rounded away: what is trained is held in float32, and the share that moves is measured.

AdamW at a learning rate of 1e-5 changes a weight of 0.02 by half a thousandth of itself, and bfloat16 cannot hold a
change below one part in 256: of the selected values of SmolLM2-135M 1.8 % change in ten steps where they are bfloat16,
all of them where they are float32. The arithmetic stays bfloat16 by autocast, and frozen weights may be what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from spectrum_fast.use.training.trainable import optimizer_groups, partitioned_groups

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainingArguments

WATCHED_STEPS = 10
"""Steps with a learning rate above zero after which the share of changed values is taken."""
LEAST_SHARE = 0.5
"""Below it a run is warned: in float32 every value that has a gradient changes, in bfloat16 a few percent do."""
_HOOK = "_spectrum_fast_loads_wide"
_SAMPLED = 2**14
"""Values of each parameter that are watched, evenly spaced."""

_EXACT_OPTIMIZERS = {
    "stable_adamw": None,
    "adamw_anyprecision": "use_kahan_summation",
    "adamw_torch_8bit": "bf16_stochastic_round",
    "adamw_torch_4bit": "bf16_stochastic_round",
}
"""Optimizers whose 16-bit updates are not lost, and the key of ``optim_args`` that must be true for it. Source:
transformers' ``trainer_optimizer.py``: Kahan sums in optimi's StableAdamW and torchdistx' AnyPrecisionAdamW, stochastic
rounding in torchao's."""


def keeps_small_updates(arguments: TrainingArguments) -> bool:
    """Whether the optimizer that is asked for by name trains 16-bit weights without losing small updates."""
    name = str(getattr(arguments.optim, "value", arguments.optim))
    key = _EXACT_OPTIMIZERS.get(name)
    given = dict(item.split("=", 1) for item in (arguments.optim_args or "").replace(" ", "").split(",") if "=" in item)
    on = key is None or given.get(key, "").lower() in ("true", "1", "yes", "y", "t", "on")
    return name in _EXACT_OPTIMIZERS and on


def widen_trained(model: nn.Module, arguments: TrainingArguments) -> None:
    """Make 16-bit trainable parameters float32 where autocast computes in 16 bits.

    Left alone are parameters whose optimizer needs no more (:func:`keeps_small_updates`) and those that ZeRO-3 has
    divided, for DeepSpeed steps float32 copies. Without autocast (``bf16`` or ``fp16``) types cannot be mixed. Layer
    norms become float32 in any case: torch's takes a float32 input, as a trained layer before may give it, with
    float32 weights only. What a checkpoint holds in float32 is loaded as that from now on, also what was trained
    before the last reselection only, so that a resumed run has the values of the one that was stopped.
    """
    if not (arguments.bf16 or arguments.fp16) or keeps_small_updates(arguments):
        return
    norms = (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm))
    _widen(parameter for norm in norms for parameter in norm.parameters())
    _widen(parameter for parameter in model.parameters() if parameter.requires_grad)
    if not hasattr(model, _HOOK):
        setattr(model, _HOOK, model.register_load_state_dict_pre_hook(_widen_what_comes_wide))


def _widen(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.dtype in (torch.bfloat16, torch.float16) and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.float()


def _widen_what_comes_wide(model: nn.Module, state: Mapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
    known = model.named_parameters(remove_duplicate=False)
    _widen(p for name, p in known if getattr(state.get(prefix + name), "dtype", None) is torch.float32)


class ChangeMeter:
    """The share of trained values that the first steps have changed, among those that had a gradient.

    Args:
        optimizer: as the trainer has it. DeepSpeed's is not looked at: its copies are float32.
    """

    def __init__(self, optimizer: Any) -> None:
        self._groups = [] if partitioned_groups(optimizer) else optimizer_groups(optimizer)
        self._watched = [
            (parameter, _sample(parameter).clone(), torch.zeros(_sample(parameter).shape, dtype=torch.bool))
            for group in self._groups
            for parameter in group["params"]
        ]
        self.steps = 0

    def before_step(self) -> None:
        """Note which of the sampled values have a gradient; a step without a learning rate does not count."""
        if not any(float(group["lr"]) > 0 for group in self._groups):
            return
        self.steps += 1
        for parameter, _, touched in self._watched:
            if parameter.grad is not None and not parameter.grad.is_sparse:
                touched |= (_sample(parameter.grad) != 0).cpu()

    def share(self) -> float | None:
        """In [0, 1]; None where nothing can be said."""
        changed = total = 0.0
        for parameter, before, touched in self._watched:
            if not len(touched):
                continue
            weight = _local(parameter).numel() / len(touched)
            changed += weight * int(((_sample(parameter) != before).cpu() & touched).sum())
            total += weight * int(touched.sum())
        return changed / total if total else None


def describe_loss(share: float, arguments: TrainingArguments) -> str:
    """The warning for a run whose updates are rounded away."""
    return (
        f"only {100 * share:.3g} % of the trained values have changed in the first steps: at this learning rate "
        f"({arguments.learning_rate:g}) their type rounds most updates away; train in float32 with autocast (bf16: "
        "true, and dtype float32, or bfloat16 with the selection given when the trainer is made), or take an optimizer "
        "with Kahan sums or stochastic rounding (optim: stable_adamw)"
    )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP has divided."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = _local(tensor.detach()).reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLED)]
