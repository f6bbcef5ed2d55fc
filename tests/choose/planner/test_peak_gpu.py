"""Planned peaks against what a GPU's allocator has handed out, within a tenth. Not run yet: needs a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the training libraries")

from spectrum_fast.choose.planner.memory import plan_memory, read_model_shape  # noqa: E402
from spectrum_fast.choose.planner.setup import TrainingSetup  # noqa: E402

from support.planner_models import make_model, save_model  # noqa: E402


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpointing", ["none", "layer"])
@pytest.mark.parametrize(("method", "percent"), [("full", 25), ("spectrum", 25), ("spectrum", 50)])
def test_planned_peak_is_the_allocators(method: str, percent: int, checkpointing: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 3584, "head_dim": 128, "num_attention_heads": 8}
    model = make_model("Llama", num_hidden_layers=8, vocab_size=32000, max_position_embeddings=2048, **sizes)
    shape = read_model_shape(save_model(model, tmp_path))
    setup = TrainingSetup(
        method=method, zero=0, autocast=False, seq_len=2048, micro_batch=2, checkpointing=checkpointing
    )
    plan = plan_memory(shape, setup, top_percent=percent)
    model = model.to(torch.bfloat16).cuda().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.trained.trained)
    if checkpointing == "layer":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    tokens = torch.randint(0, 32000, (2, 2048), device="cuda")
    for step in range(3):
        if step == 1:
            torch.cuda.reset_peak_memory_stats()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert plan.peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.10)
