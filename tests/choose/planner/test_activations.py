"""The pass on fake tensors against real ones: the most memory that forward and backward hold, by torch's profiler."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the training libraries")

from spectrum_fast.choose.planner.activations import compute_activations  # noqa: E402
from spectrum_fast.choose.planner.memory import read_model_shape  # noqa: E402
from spectrum_fast.choose.planner.setup import TrainingSetup  # noqa: E402
from spectrum_fast.choose.planner.trained import as_trained, choose_trained  # noqa: E402

from support.planner_models import make_model, save_model  # noqa: E402

# A processor's bfloat16 products pack their operands into scratch, a piece a thread: 12 kB by one, 104 kB by three.
pytestmark = pytest.mark.usefixtures("one_thread")

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SEQUENCES, LENGTH = 3, 48
TRAINS = {
    "full": lambda name: bool(name),
    "half": lambda name: "embed" in name or "layers.1." in name or "layers.3.mlp" in name,
    "norms": lambda name: "norm" in name,
    "last layer": lambda name: "layers.3." in name,
    "one layer's mlp": lambda name: "layers.2.mlp" in name,
}


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


def measure(model: Any, setup: TrainingSetup) -> int:
    """Of one real pass, after one that warms what is made once.

    Left out is what a GPU does not hold: states of random generators (5,056 bytes a checkpoint, always the host's).
    """
    if setup.checkpointing == "layer":
        kept = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kept)
    tokens = torch.randint(0, 256, (setup.micro_batch, setup.seq_len))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if setup.autocasts else contextlib.nullcontext():
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()

    step()
    model.zero_grad(set_to_none=True)
    return peak_bytes(step)


def plan_and_measure(kind: str, folder: Path, setup: TrainingSetup, picks: Any, **sizes: Any) -> tuple[int, int]:
    model = make_model(kind, **sizes)
    shape = read_model_shape(save_model(model, folder))
    names = {name for name, _ in model.named_parameters() if picks(name)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.data = parameter.data.to(DTYPES[setup.trained_dtype if name in names else setup.dtype])
    planned = compute_activations(as_trained(shape, setup, names), setup)
    return planned.peak, measure(model.train(), setup)


def scratch_bytes() -> int:
    """What a bfloat16 product takes beside its result, at most, and no GPU holds.

    12 kB where a processor has instructions for it, else copies of its operands in float32, 148 kB.
    """
    rows, width, outputs = SEQUENCES * LENGTH, 64, 256  # the output layer's, the largest
    x, weight = torch.zeros(rows, width, dtype=torch.bfloat16), torch.zeros(outputs, width, dtype=torch.bfloat16)
    y = torch.zeros(rows, outputs, dtype=torch.bfloat16)
    return max(_scratch_of(x, weight.T), _scratch_of(y, weight), _scratch_of(y.T, x))


def _scratch_of(left: Any, right: Any) -> int:
    results = [left @ right]
    return peak_bytes(lambda: results.append(left @ right)) - results[0].nbytes


def require_planned(planned: int, measured: int) -> None:
    assert planned <= 1.01 * measured
    assert measured <= 1.01 * planned or measured - scratch_bytes() <= 1.01 * planned


def a_pass(**options: Any) -> TrainingSetup:
    return TrainingSetup(method="full", zero=0, **{"seq_len": LENGTH, "micro_batch": SEQUENCES, **options})


@pytest.mark.parametrize(
    "trains", ["half", *(pytest.param(name, marks=pytest.mark.slow) for name in TRAINS if name != "half")]
)
@pytest.mark.parametrize(
    ("kind", "dtype", "autocast"),
    [
        ("Llama", "bf16", False),
        ("Llama", "bf16", True),
        ("Llama", "fp32", True),
        ("Qwen3", "bf16", False),
        ("GPTNeoX", "fp32", False),
        ("Qwen2Moe", "bf16", False),
        ("Mixtral", "fp32", False),
    ],
)
def test_a_pass_on_fake_tensors_holds_what_a_real_one_does(
    kind: str, dtype: str, autocast: bool, trains: str, tmp_path: Path
) -> None:
    planned, measured = plan_and_measure(kind, tmp_path, a_pass(dtype=dtype, autocast=autocast), TRAINS[trains])
    require_planned(planned, measured)


@pytest.mark.parametrize(
    ("kind", "autocast"),
    [("Llama", True), *(pytest.param("Qwen2Moe", on, marks=pytest.mark.slow) for on in (False, True))],
)
def test_with_checkpointing(kind: str, autocast: bool, tmp_path: Path) -> None:
    setup = a_pass(autocast=autocast, checkpointing="layer", dtype="bf16")
    planned, measured = plan_and_measure(kind, tmp_path, setup, TRAINS["full"], num_hidden_layers=8)
    require_planned(planned, measured)
    plain, _ = plan_and_measure(kind, tmp_path, a_pass(autocast=autocast), TRAINS["full"], num_hidden_layers=8)
    assert planned < plain


@pytest.mark.parametrize(("adapter_dtype", "dropout"), [("bf16", 0.0), ("fp32", 0.1)])
def test_adapters(adapter_dtype: str, dropout: float, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = make_model("Llama")
    shape = read_model_shape(save_model(model, tmp_path))
    options: dict[str, Any] = {"lora_rank": 4, "lora_dropout": dropout, "adapter_dtype": adapter_dtype}
    setup = TrainingSetup(
        method="lora", zero=0, autocast=False, seq_len=LENGTH, micro_batch=SEQUENCES, dtype="bf16", **options
    )
    trained = choose_trained(shape, setup)
    homes = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in trained.trained}
    config = peft.LoraConfig(r=4, lora_dropout=dropout, target_modules=sorted(homes), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model.to(torch.bfloat16), config).train()
    for parameter in adapted.parameters():
        parameter.data = parameter.data.to(DTYPES[adapter_dtype] if parameter.requires_grad else torch.bfloat16)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == trained.trained_count
    assert compute_activations(trained, setup).peak == pytest.approx(measure(adapted, setup), rel=0.01)


def test_layers_before_the_first_trained_one_keep_nothing(tmp_path: Path) -> None:
    shape = read_model_shape(save_model(make_model("Llama"), tmp_path))
    setup = a_pass(autocast=False)
    saved = [
        compute_activations(as_trained(shape, setup, {f"model.layers.{layer}.mlp.down_proj.weight"}), setup).saved
        for layer in range(4)
    ]
    assert saved == sorted(saved, reverse=True)
    a_layer = saved[0] - saved[1]
    assert saved[1] - saved[2] == a_layer > 0
    # Without attention behind the first trained matrix, nothing keeps the tables of positions either.
    assert 0 < saved[2] - saved[3] - a_layer < 0.02 * a_layer


def test_gradients_that_are_divided_or_held_are_not_whole_in_the_pass(tmp_path: Path) -> None:
    shape = read_model_shape(save_model(make_model("Llama", vocab_size=2048), tmp_path))
    setups = [TrainingSetup(method="full", gpus=4, zero=stage, autocast=False, seq_len=8) for stage in (0, 2, 3)]
    one, two, three = (compute_activations(choose_trained(shape, setup), setup) for setup in setups)
    bytes_of_all = 2 * choose_trained(shape, setups[0]).count
    assert one.gradients > two.gradients > three.gradients == 0
    assert one.gradients <= bytes_of_all
    assert two.gradients <= bytes_of_all // 4
    again = compute_activations(choose_trained(shape, a_pass()), a_pass(gradient_accumulation=2))
    assert again.gradients == 0


def test_a_kernel_that_never_holds_the_logits(tmp_path: Path) -> None:
    shape = read_model_shape(save_model(make_model("Llama", vocab_size=4096), tmp_path))
    whole, fused = (
        compute_activations(choose_trained(shape, a_pass()), a_pass(loss=kind)) for kind in ("logits", "fused")
    )
    assert whole.saved - fused.saved > SEQUENCES * (LENGTH - 1) * 4096 * 4 * 0.9


def test_scores_are_stored_by_eager_attention_only(tmp_path: Path) -> None:
    shape = read_model_shape(save_model(make_model("Llama"), tmp_path))
    trained = choose_trained(shape, a_pass())
    flash, eager = (compute_activations(trained, a_pass(attention=kind)).saved for kind in ("flash", "eager"))
    assert eager - flash > 4 * 4 * SEQUENCES * LENGTH * LENGTH * 2
