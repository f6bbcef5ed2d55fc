"""One rank of two: scans of a model that ZeRO-3 has partitioned are those of the whole, between steps of training."""

import deepspeed
import torch
import transformers

import spectrum_fast as sf

deepspeed.init_distributed("gloo")
torch.manual_seed(0)
config = transformers.MixtralConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_local_experts=3,
)
model = transformers.MixtralForCausalLM(config)
expected = sf.scan(model)
engine, *_ = deepspeed.initialize(
    model=model,
    config={
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_force_ds_cpu_optimizer": False,
    },
    optimizer=torch.optim.AdamW(model.parameters(), lr=0.0),
)
shapes = {name: value.shape for name, value in engine.module.named_parameters()}
assert all(shape == torch.Size([0]) for shape in shapes.values())
for _ in range(2):
    steps = []
    live = sf.scan(engine, progress=steps.append)
    assert live.modules == expected.modules, [
        (a, b) for a, b in zip(live.modules, expected.modules, strict=True) if a != b
    ][:1]
    assert steps[-1].done == len(live.modules)
    assert {name: value.shape for name, value in engine.module.named_parameters()} == shapes
    tokens = torch.arange(8)[None]
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()
print("same", torch.distributed.get_rank())
