"""What autograd keeps of one decoder layer, tensor by tensor, by the kind of the layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spectrum_fast.choose.planner.model_shape import ModelShape, ParameterShape
from spectrum_fast.choose.planner.setup import DTYPE_BYTES, TrainingSetup
from spectrum_fast.choose.planner.trained import TrainedShape

FLOAT_BYTES = 4


class Ledger:
    """Collects what one layer saves; each method is one operation and says whether its output carries a gradient.

    Args:
        tokens: rows of an activation.
        setup: element sizes, adapters.
        trained: which parameters and modules are trained.
    """

    def __init__(self, tokens: int, setup: TrainingSetup, trained: TrainedShape) -> None:
        self.tokens = tokens
        self.setup = setup
        self.size = setup.element_bytes
        self.trained = trained
        self.saved = 0

    def rms_norm(self, name: str, width: int, flows: bool, groups: int = 1) -> bool:
        """Float32 input and the reciprocal root; the normalised input where the weight is trained."""
        learns = f"{name}.weight" in self.trained.trained
        if flows:
            self.saved += self.tokens * groups * (width + 1) * FLOAT_BYTES
        if learns:
            self.saved += self.tokens * groups * width * self.size
        return flows or learns

    def layer_norm(self, name: str, width: int, flows: bool, shared: bool = False) -> bool:
        """The input (unless another operation keeps the same), mean and reciprocal deviation."""
        learns = f"{name}.weight" in self.trained.trained or f"{name}.bias" in self.trained.trained
        if flows or learns:
            self.saved += self.tokens * ((0 if shared else width * self.size) + 2 * FLOAT_BYTES)
        return flows or learns

    def linear(self, modules: Iterable[ParameterShape], flows: bool, tokens: int | None = None) -> bool:
        """Linear layers that read one input: it is kept once if any of them learns; adapters keep their own."""
        rows = self.tokens if tokens is None else tokens
        members = tuple(modules)
        adapter = self.adapter_bytes
        adapted = [member for member in members if member.module in self.trained.adapted]
        for member in adapted:
            width = member.shape[-1]
            if self.setup.lora_dropout:
                self.saved += rows * width * (adapter + flows)  # dropped out, and the mask where a gradient goes on
            elif adapter != self.size:
                self.saved += rows * width * adapter  # cast for the adapter
            self.saved += rows * self.setup.lora_rank * adapter
        if self.keeps_input(members):
            self.saved += rows * members[0].shape[-1] * self.size
        return flows or bool(adapted) or any(member.name in self.trained.trained for member in members)

    def keeps_input(self, modules: Iterable[ParameterShape]) -> bool:
        """Whether the input itself is kept: a weight learns, or an adapter of the same type reads it as it is."""
        members = tuple(modules)
        as_it_is = self.adapter_bytes == self.size and not self.setup.lora_dropout
        return any(
            member.name in self.trained.trained or (as_it_is and member.module in self.trained.adapted)
            for member in members
        )

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's number; DeepSpeed casts adapters to the model's type."""
        return DTYPE_BYTES[self.setup.adapter_dtype] if self.setup.zero == 0 else self.size

    def elements(self, width: int, tokens: int | None = None) -> None:
        """One activation of this width."""
        self.saved += (self.tokens if tokens is None else tokens) * width * self.size

    def attention(self, query: int, key: int, value: int, heads: int) -> None:
        """Query, key, value, output and a float32 statistic a head and token; with eager scores instead of the last."""
        self.elements(2 * query + key + value)
        if self.setup.attention == "flash":
            self.saved += self.tokens * heads * FLOAT_BYTES
        else:
            scores = self.tokens * self.setup.seq_len * heads
            self.saved += scores * (FLOAT_BYTES + self.size)


def layer_saves(
    ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool
) -> tuple[bool, bool]:
    """Enter what one layer saves.

    Args:
        ledger: filled.
        modules: type (without the layer) -> weight of the layer.
        model: the model.
        flows: whether the layer's input carries a gradient.

    Returns:
        whether its output does, and whether its kind is known.
    """
    if {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"} <= set(modules):
        middle = _gated_attention(ledger, modules, model, flows)
        if {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"} <= set(modules):
            return _gated_mlp(ledger, modules, model, middle), True
        if any(kind.endswith("experts.gate_up_proj") for kind in modules):
            return _experts(ledger, modules, model, middle), False
    if {"attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"} <= set(modules):
        return _neox_layer(ledger, modules, model, flows), True
    return _unknown_layer(ledger, modules, model, flows), False


def _gated_attention(ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool) -> bool:
    prefix = _prefix(modules)
    inner = ledger.rms_norm(f"{prefix}input_layernorm", model.hidden, flows)
    parts = [modules[f"self_attn.{part}_proj"] for part in "qkv"]
    query, key, value = (part.shape[0] for part in parts)
    any_flows = ledger.linear(parts, inner)
    if "self_attn.q_norm" in modules:
        head = modules["self_attn.q_norm"].shape[0]
        for part, width in (("q_norm", query), ("k_norm", key)):
            name = f"{prefix}self_attn.{part}"
            any_flows |= ledger.rms_norm(name, head, any_flows, groups=width // head)
    if any_flows:
        ledger.attention(query, key, value, model.heads)
        _output_projection(ledger, modules["self_attn.o_proj"])
    elif _learns(ledger, modules["self_attn.o_proj"]):
        ledger.linear([modules["self_attn.o_proj"]], any_flows)
    return flows or any_flows or _learns(ledger, modules["self_attn.o_proj"])


def _output_projection(ledger: Ledger, out: ParameterShape) -> None:
    """The output projection reads what attention keeps anyway; only an adapter adds something of its own."""
    ledger.linear([out], True)
    if ledger.keeps_input([out]):
        ledger.saved -= ledger.tokens * out.shape[1] * ledger.size


def _gated_mlp(ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool) -> bool:
    inner = ledger.rms_norm(f"{_prefix(modules)}post_attention_layernorm", model.hidden, flows)
    gate, up, down = (modules[f"mlp.{part}_proj"] for part in ("gate", "up", "down"))
    reads = ledger.linear([gate, up], inner)
    gate_flows = inner or _learns(ledger, gate)
    up_flows = inner or _learns(ledger, up)
    width = gate.shape[0]
    if gate_flows:
        ledger.elements(2 * width)  # before the activation function, and `up` for the product
    if up_flows:
        ledger.elements(width)  # after the activation function
    ledger.linear([down], reads)
    return flows or reads or _learns(ledger, down)


def _learns(ledger: Ledger, parameter: ParameterShape) -> bool:
    return parameter.name in ledger.trained.trained or parameter.module in ledger.trained.adapted


def _experts(ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool) -> bool:
    """An estimate: every token's input, both projections and the product, once an expert that it visits."""
    inner = ledger.rms_norm(f"{_prefix(modules)}post_attention_layernorm", model.hidden, flows)
    fused = next(p for kind, p in modules.items() if kind.endswith("experts.gate_up_proj"))
    down = next(p for kind, p in modules.items() if kind.endswith("experts.down_proj"))
    rows = ledger.tokens * model.experts_per_token
    learns = fused.name in ledger.trained.trained or down.name in ledger.trained.trained
    if inner or learns:
        ledger.elements(model.hidden, rows)  # the gathered input
        ledger.elements(fused.shape[1] // 2 * 4, rows)  # gate, up, activated gate, product
        ledger.elements(model.hidden, rows)  # the output, for the routing weights
        ledger.saved += ledger.tokens * fused.shape[0] * FLOAT_BYTES * 2  # router: logits and softmax
    return flows or inner or learns


def _neox_layer(ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool) -> bool:
    """GPT-NeoX: attention and MLP side by side on the same input, each behind a layer norm of its own."""
    prefix, width = _prefix(modules), model.hidden
    inner = ledger.layer_norm(f"{prefix}input_layernorm", width, flows)
    fused, dense = modules["attention.query_key_value"], modules["attention.dense"]
    if ledger.linear([fused], inner):
        # Rotary embedding makes a new query and key; the value is a view that keeps all three alive.
        ledger.attention(width, width, fused.shape[0], model.heads)
    ledger.linear([dense], True)  # attention's output is copied into rows before it is read
    middle = ledger.layer_norm(f"{prefix}post_attention_layernorm", width, flows, shared=inner)
    up, down = modules["mlp.dense_h_to_4h"], modules["mlp.dense_4h_to_h"]
    reads = ledger.linear([up], middle)
    if reads:
        ledger.elements(up.shape[0])
    ledger.linear([down], reads)
    return flows or inner or middle or any(_learns(ledger, part) for part in (fused, dense, up, down))


def _unknown_layer(ledger: Ledger, modules: Mapping[str, ParameterShape], model: ModelShape, flows: bool) -> bool:
    """An estimate: ``s b h (34 + 5 a s / h)`` at two bytes a number, the scores' term only where they are stored."""
    learns = any(_learns(ledger, part) for part in modules.values())
    if flows or learns:
        ledger.elements(17 * model.hidden)
        if ledger.setup.attention == "eager":
            ledger.saved += ledger.tokens * ledger.setup.seq_len * model.heads * 5
    return flows or learns


def _prefix(modules: Mapping[str, ParameterShape]) -> str:
    kind, parameter = next(iter(modules.items()))
    return parameter.module.removesuffix(kind)
