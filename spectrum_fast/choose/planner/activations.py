"""Bytes of one forward and backward pass, from running it on tensors without content.

The model is transformers' own, its tensors are fake (shape, type and storage, no bytes), and every storage that an
operation makes is counted while it lives. So nothing has to be known of an architecture: what autograd keeps where most
weights are frozen, casts of autocast, checkpointing, mixtures of experts, and gradients that appear while activations
go are those of the real pass. ``tests/choose/planner/test_activations.py`` holds it to torch's profiler.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spectrum_fast.choose.planner.trained import TORCH, TrainedModel
from spectrum_fast.errors import CheckpointError

if TYPE_CHECKING:
    from spectrum_fast.choose.planner.setup import TrainingSetup


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes of one micro-batch on one GPU, parameters left out.

    Attributes:
        saved: kept from the forward to the backward pass, the loss's share included.
        peak: the most that is alive at one time, with gradients of parameters, except where they are held all along.
        gradients: the gradients among ``peak``.
    """

    saved: int
    peak: int
    gradients: int


def compute_activations(trained: TrainedModel, setup: TrainingSetup) -> ActivationBytes:
    """Run one micro-batch on fake tensors.

    Raises:
        CheckpointError: the model cannot be run so: what it computes depends on values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model: Any = copy.deepcopy(trained.module)
    _make_fake(model, mode)
    if setup.checkpointing == "layer":
        # Its name until transformers 5.23.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        if setup.adapts:
            model.enable_input_require_grads()
    model.config._attn_implementation = "eager" if setup.attention == "eager" else _unmasked_attention()
    model.train()
    tally = _Tally(model)
    kept = _watch_gradients(model, setup, tally)
    try:
        with mode, tally, torch.autocast("cpu", TORCH[setup.autocast_dtype], enabled=setup.autocasts):
            loss = _loss(model, setup)
            saved = tally.alive
        with mode, tally:
            loss.backward()
    # Whatever a model does with values that are not there has no common class.
    except Exception as error:
        raise CheckpointError(
            f"{trained.name}: its activations cannot be told without running it: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        kept.clear()
    return ActivationBytes(saved, tally.peak, tally.gradients_at_peak)


class _Tally(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they live."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self.alive = self.peak = self.gradients = self.gradients_at_peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._grouped_mm.default:  # torch's own rule for shapes knows no float32
            result = _grouped_product(*args, **(kwargs or {}))
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive += nbytes
        if self.alive > self.peak:
            self.peak, self.gradients_at_peak = self.alive, self.gradients
        weakref.finalize(storage, self._forget, key, nbytes)

    def _forget(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.alive -= nbytes


def _grouped_product(
    left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    groups = (len(offsets),) if left.dim() == right.dim() == 2 else ()
    return left.new_empty((*groups, left.shape[-2], right.shape[-1]))


def _unmasked_attention() -> str:
    """SDPA without a mask, which it is given for fake tensors, whose values cannot show that none is needed."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, _: Any, **options: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, **options)

    AttentionInterface.register("spectrum_fast_plan", attend)
    AttentionMaskInterface.register("spectrum_fast_plan", lambda *_, **__: None)
    return "spectrum_fast_plan"


def _make_fake(model: nn.Module, mode: Any) -> None:
    """Tensors of the meta device become tensors that say they lie on a CPU, so that autocast works; ties stay."""
    from torch._subclasses.fake_tensor import FakeTensor

    made: dict[Any, nn.Parameter] = {}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None and value not in made:
                fake = FakeTensor(mode, value.data, torch.device("cpu"))
                made[value] = nn.Parameter(fake, requires_grad=value.requires_grad)
            if value is not None:
                module._parameters[name] = made[value]
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = FakeTensor(mode, value.to("meta"), torch.device("cpu"))


def _watch_gradients(model: nn.Module, setup: TrainingSetup, tally: _Tally) -> list[Any]:
    """Count gradients of parameters; where the model is divided each is replaced by this process's part at once."""
    parts: list[torch.Tensor] = []

    def arrived(parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None  # noqa: S101 - it has just been made
        if setup.holds_gradients or setup.divides:
            parameter.grad = None
        if setup.holds_gradients:
            return  # it is added to one that is there from the start
        if setup.divides:
            gradient = torch.empty(-(-gradient.numel() // setup.gpus), dtype=TORCH[setup.trained_dtype])
            parts.append(gradient)
        tally.gradients += gradient.untyped_storage().nbytes()

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(arrived)
    return parts


def _loss(model: Any, setup: TrainingSetup) -> torch.Tensor:
    tokens = torch.zeros(setup.micro_batch, setup.seq_len, dtype=torch.long)
    if setup.loss == "logits":
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss
    inner = model.get_base_model() if setup.adapts else model
    hidden = inner.base_model(input_ids=tokens, use_cache=False)[0]
    # The logits of one token stand for a kernel that never holds them all: its gradients are as large as ever.
    return inner.get_output_embeddings()(hidden[:, :1]).float().sum()
