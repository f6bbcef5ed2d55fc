"""One rank of two: the scan of a model that FSDP2 has sharded is that of the whole."""

import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import spectrum_fast as sf

torch.distributed.init_process_group("gloo")
torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)
model = transformers.LlamaForCausalLM(config)
expected = sf.scan(model)
mesh = init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
before = {name: value.to_local().clone() for name, value in model.named_parameters()}
assert any(value.shape != dict(model.named_parameters())[name].shape for name, value in before.items())
live = sf.scan(model)
assert live.modules == expected.modules
assert all(torch.equal(value.to_local(), before[name]) for name, value in model.named_parameters())
print("same", torch.distributed.get_rank())
torch.distributed.destroy_process_group()
