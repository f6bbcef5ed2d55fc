"""Bytes that a forward pass keeps for its backward pass: a ledger of what autograd saves, layer by layer.

Korthikanti et al. 2022 (arXiv 2205.05198, section 4) count the activations of a transformer layer as
``s b h (34 + 5 a s / h)`` bytes when everything is trained. Where most weights are frozen that is too much: autograd
keeps the input of a linear layer only if its weight is trained, and keeps nothing at all before the first trained
parameter. So the same bookkeeping is done here tensor by tensor, with the gradient's way followed from the embedding
on. Sizes are those of the transformers implementations (norms in float32; the scores not stored by SDPA).
``tests/choose/planner/test_activations.py`` holds it to the storages that a real forward pass saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spectrum_fast.choose.planner.layers import FLOAT_BYTES, Ledger, layer_saves
from spectrum_fast.choose.planner.model_shape import ModelShape, ParameterShape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.planner.trained import TrainedShape
from spectrum_fast.read.checkpoint.naming import layer_index, module_type

_INDEX_BYTES = 8


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes of activations on one GPU for one micro-batch.

    Attributes:
        saved: kept from the forward to the backward pass.
        ends: the part of ``saved`` that belongs to the final norm and the head, and is gone before the last layer.
        loss: in addition while the loss and its gradient are computed: logits and softmax, or softmax and gradients.
        layer: what the largest layer keeps; with checkpointing it comes in addition while that layer is computed again.
        passing: gradients of activations that are alive together inside a layer.
        checkpointed: whether only the inputs of the layers are in ``saved``.
        exact: whether every layer was one whose tensors are known; else they are estimated.
    """

    saved: int
    ends: int
    loss: int
    layer: int
    passing: int
    checkpointed: bool
    exact: bool

    @property
    def peak(self) -> int:
        """The most that is alive at one time: at the loss, or inside the last layer."""
        again = self.layer if self.checkpointed else 0
        return max(self.saved + self.loss, self.saved - self.ends + again + self.passing)

    @property
    def last(self) -> int:
        """What is alive when the first layer, the last to be differentiated, is reached."""
        return self.layer + self.passing


def compute_activations(trained: TrainedShape, setup: TrainingSetup) -> ActivationBytes:
    """Bytes of activations of one micro-batch on one GPU.

    Args:
        trained: which parameters are trained, and the model.
        setup: batch, precision, checkpointing, attention and loss.
    """
    model, size = trained.model, setup.element_bytes
    layers = _layers(model)
    learns = trained.trained
    flows = any(p.is_embedding and p.name in learns for p in model.parameters)
    saved = setup.tokens * _INDEX_BYTES if flows else 0
    if setup.adapts and setup.checkpointing == "layer":
        flows = True  # PEFT makes the embedding's output require gradients, or nothing would be recomputed
    checkpointed = setup.checkpointing == "layer"
    largest, passing, exact, rotary = 0, 0, True, False
    for modules in layers:
        ledger = Ledger(setup.tokens, setup, trained)
        before = flows
        flows, known = layer_saves(ledger, modules, model, before)
        exact &= known
        rotary |= flows
        if flows:
            saved += setup.tokens * model.hidden * size if checkpointed else ledger.saved
            largest = max(largest, ledger.saved)
            passing = max(passing, _gradients(modules, setup, model))
    if rotary:
        saved += 2 * setup.seq_len * model.rotary * size
    ends = Ledger(setup.tokens, setup, trained)
    names = {parameter.name for parameter in model.parameters}
    for parameter in model.parameters:
        if _is_final_norm(parameter):
            norm = ends.layer_norm if f"{parameter.module}.bias" in names else ends.rms_norm
            flows = norm(parameter.module, model.hidden, flows)
    heads = [p for p in model.parameters if (p.is_embedding if model.tied else p.is_head) and p.shape[0] == model.vocab]
    flows = ends.linear(heads[:1], flows)
    return ActivationBytes(
        saved=saved + ends.saved,
        ends=ends.saved,
        loss=_loss(model, setup),
        layer=largest,
        passing=passing,
        checkpointed=checkpointed,
        exact=exact,
    )


def _layers(model: ModelShape) -> list[dict[str, ParameterShape]]:
    """One mapping a layer: module type -> its weight."""
    layers: dict[int, dict[str, ParameterShape]] = {}
    for parameter in model.parameters:
        index = layer_index(parameter.name)
        if index is not None and not parameter.name.endswith(".bias"):
            layers.setdefault(index, {})[module_type(parameter.module)] = parameter
    return [layers[index] for index in sorted(layers)]


def _is_final_norm(parameter: ParameterShape) -> bool:
    return (
        layer_index(parameter.name) is None
        and len(parameter.shape) == 1
        and parameter.name.endswith(".weight")
        and "norm" in parameter.module.rpartition(".")[2].lower()
    )


def _gradients(modules: Mapping[str, ParameterShape], setup: TrainingSetup, model: ModelShape) -> int:
    """Gradients alive together inside a layer, beyond what has been freed by then: both factors of the MLP's product.

    The product itself is freed when its gradient appears.
    """
    widest = max(p.shape[-2] for p in modules.values() if len(p.shape) >= 2)
    rows = setup.tokens * max(1, model.experts_per_token)
    return rows * (2 * widest + model.hidden) * setup.element_bytes


def _loss(model: ModelShape, setup: TrainingSetup) -> int:
    """Logits, their float32 copy and softmax, or (later, and more) the softmax with two gradients; labels."""
    if setup.loss == "fused":
        return 0
    logits = setup.tokens * model.vocab
    copies = setup.element_bytes + (FLOAT_BYTES if setup.element_bytes != FLOAT_BYTES else 0) + FLOAT_BYTES
    return logits * max(copies, 3 * FLOAT_BYTES) + setup.tokens * _INDEX_BYTES
