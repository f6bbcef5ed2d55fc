"""The ledger of saved activations against the storages that a real forward pass saves."""

from __future__ import annotations

import gc
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the training libraries")

from spectrum_fast.choose.planner import TrainingSetup, plan_memory, read_model_shape  # noqa: E402
from spectrum_fast.choose.planner.activations import compute_activations  # noqa: E402
from spectrum_fast.choose.planner.trained import TrainedShape, choose_trained  # noqa: E402
from spectrum_fast.read.checkpoint import open_checkpoint  # noqa: E402

from support.planner_models import make_model, save_model  # noqa: E402

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCE = 0.01
"""Masks, indices, and scalars are not listed; everything that grows with the model is."""


def saved_bytes(model: Any, tokens: Any) -> int:
    """Bytes of the distinct storages that autograd saves in one forward pass, the parameters' own left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address would be given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=tokens, labels=tokens, use_cache=False)
    return sum(sizes.values())


def predicted_bytes(trained: TrainedShape, setup: TrainingSetup) -> int:
    """What the ledger says is saved, with the softmax that the loss saves."""
    vocabulary = setup.tokens * trained.model.vocab * 4
    return compute_activations(trained, setup).saved + vocabulary + setup.tokens * 8


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Llama", "bf16"),
        ("Llama", "fp32"),
        ("Qwen2", "bf16"),
        ("Qwen3", "bf16"),
        ("Mistral", "bf16"),
        ("GPTNeoX", "bf16"),
    ],
)
@pytest.mark.parametrize("trains", ["full", "half", "norms", "last layer", "one matrix"])
def test_saved_activations_are_those_of_a_forward_pass(kind: str, trains: str, dtype: str, tmp_path) -> None:
    model = make_model(kind)
    shape = read_model_shape(open_checkpoint(save_model(model, tmp_path)))
    model = model.to(DTYPES[dtype]).train()
    setup = TrainingSetup(method="full", zero=0, dtype=dtype, seq_len=48, micro_batch=3)
    pick = {
        "full": lambda name: bool(name),
        "half": lambda name: "embed" in name or "layers.1." in name or "layers.3.mlp" in name,
        "norms": lambda name: "norm" in name,
        "last layer": lambda name: "layers.3." in name,
        "one matrix": lambda name: "layers.2" in name and ("down_proj" in name or "4h_to_h.weight" in name),
    }[trains]
    names = frozenset(p.name for p in shape.parameters if pick(p.name))
    head = next(p.name for p in shape.parameters if p.is_head)  # GPT-NeoX calls it otherwise in its checkpoints
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((head if name == "lm_head.weight" else name) in names)
    trained = TrainedShape(shape, names, frozenset(), (), "by hand")
    tokens = torch.randint(0, shape.vocab, (3, 48))
    assert compute_activations(trained, setup).exact
    assert predicted_bytes(trained, setup) == pytest.approx(saved_bytes(model, tokens), rel=TOLERANCE)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("adapter_dtype", ["bf16", "fp32"])
def test_saved_activations_of_adapters(adapter_dtype: str, dropout: float, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    model = make_model("Llama")
    shape = read_model_shape(open_checkpoint(save_model(model, tmp_path)))
    setup = TrainingSetup(
        method="lora", zero=0, seq_len=48, micro_batch=3, lora_rank=4, lora_dropout=dropout, adapter_dtype=adapter_dtype
    )
    trained = choose_trained(shape, setup)
    targets = sorted({name.rpartition(".")[2] for name in trained.adapted})
    config = peft.LoraConfig(r=4, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(
        model.to(torch.bfloat16), config, autocast_adapter_dtype=adapter_dtype == "fp32"
    ).train()
    if adapter_dtype == "bf16":
        adapted = adapted.to(torch.bfloat16)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == trained.trained_count
    tokens = torch.randint(0, shape.vocab, (3, 48))
    # A GPU keeps the mask of a dropout in bytes; the CPU keeps the factors, in the adapters' type.
    # The first layer's query, key and value read an embedding that is not trained, and need no mask.
    first = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    inputs = sum(p.shape[1] for p in shape.parameters if p.module in trained.adapted and p.module not in first)
    masks = setup.tokens * inputs * (DTYPES[adapter_dtype].itemsize - 1) if dropout else 0
    assert predicted_bytes(trained, setup) + masks == pytest.approx(saved_bytes(adapted, tokens), rel=TOLERANCE)


def test_layers_before_the_first_trained_one_keep_nothing(tmp_path) -> None:
    shape = read_model_shape(open_checkpoint(save_model(make_model("Llama"), tmp_path)))
    setup = TrainingSetup(method="full", zero=0, seq_len=64)
    saved = [
        compute_activations(
            TrainedShape(shape, frozenset({f"model.layers.{layer}.mlp.down_proj.weight"}), frozenset(), (), ""), setup
        ).saved
        for layer in range(4)
    ]
    assert saved == sorted(saved, reverse=True)
    assert saved[0] - saved[1] == saved[1] - saved[2] == saved[2] - saved[3] > 0


def test_checkpointing_keeps_one_input_a_layer(tmp_path) -> None:
    shape = read_model_shape(open_checkpoint(save_model(make_model("Llama"), tmp_path)))
    plain = TrainingSetup(method="full", zero=0, seq_len=64)
    layered = TrainingSetup(method="full", zero=0, seq_len=64, checkpointing="layer")
    trained = choose_trained(shape, plain)
    kept, all_kept = compute_activations(trained, layered), compute_activations(trained, plain)
    assert kept.saved < all_kept.saved / 3
    ends = 64 * 8 + 2 * 64 * 16 * 2 + 64 * (65 * 4 + 64 * 2) + 64 * 64 * 2  # indices, rotary, final norm, head's input
    assert kept.saved == 4 * 64 * 64 * 2 + ends


def peak_bytes(step: Any) -> int:
    """The most memory that a call has allocated at one time, from the profiler's record of every allocation."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what an earlier step left in cycles must not be freed, and counted, inside this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    ("checkpointing", "vocab", "dtype"),
    [("none", 256, "fp32"), ("none", 4096, "bf16"), ("layer", 256, "bf16"), ("layer", 256, "fp32")],
)
def test_peak_of_a_training_pass(checkpointing: str, vocab: int, dtype: str, tmp_path) -> None:
    model = make_model("Llama", num_hidden_layers=8, vocab_size=vocab)
    shape = read_model_shape(open_checkpoint(save_model(model, tmp_path)))
    setup = TrainingSetup(method="full", zero=0, dtype=dtype, seq_len=128, micro_batch=4, checkpointing=checkpointing)
    model = model.to(DTYPES[dtype]).train()
    if checkpointing == "layer":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tokens = torch.randint(0, vocab, (4, 128))

    def step() -> None:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()

    step()
    model.zero_grad(set_to_none=True)
    plan = plan_memory(shape, setup)
    grown = plan.peak - plan.states.weights - plan.states.moments
    # Found: 0.1 % without checkpointing; with it the plan is up to 2.4 % too high.
    assert 0.995 < grown / peak_bytes(step) < (1.005 if checkpointing == "none" else 1.03)
