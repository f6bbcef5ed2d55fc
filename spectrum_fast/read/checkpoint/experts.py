"""Experts fused into one 3-D tensor: their names, and the bytes of one of them."""

from __future__ import annotations

from dataclasses import replace

from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef


def is_fused_experts(name: str) -> bool:
    """Say whether a 3-D tensor of this name holds one matrix per expert.

    >>> is_fused_experts("model.layers.0.mlp.experts.gate_up_proj")
    True
    >>> is_fused_experts("model.layers.0.block_sparse_moe.input_linear.weight")
    True
    >>> is_fused_experts("vision.patch_embed.proj.weight")
    False
    """
    return any("expert" in part or part.endswith("moe") for part in name.split("."))


def expert_name(parameter: str, expert: int) -> str:
    """Module name of one expert of a fused parameter, as an unfused checkpoint would write it.

    The index follows the last component that ends in ``experts``; where there is none, ``experts.<index>`` is put
    before the last component. So the types and groupings of unfused experts hold for fused ones.

    >>> expert_name("model.layers.0.mlp.experts.gate_up_proj", 17)
    'model.layers.0.mlp.experts.17.gate_up_proj'
    >>> expert_name("model.layers.0.block_sparse_moe.input_linear.weight", 3)
    'model.layers.0.block_sparse_moe.experts.3.input_linear'
    """
    parts = module_name(parameter).split(".")
    places = [place for place, part in enumerate(parts[:-1]) if part.endswith("experts")]
    if places:
        parts.insert(places[-1] + 1, str(expert))
    else:
        parts[-1:-1] = ["experts", str(expert)]
    return ".".join(parts)


def slice_first(ref: TensorRef, index: int) -> TensorRef:
    """The part ``tensor[index]`` of a stored tensor; its bytes are contiguous.

    >>> from pathlib import Path
    >>> part = slice_first(TensorRef("w", Path("m.safetensors"), "BF16", (4, 3, 2), 100, 48), 2)
    >>> part.shape, part.begin, part.nbytes
    ((3, 2), 124, 12)
    """
    nbytes = ref.nbytes // ref.shape[0]
    return replace(ref, shape=ref.shape[1:], begin=ref.begin + index * nbytes, nbytes=nbytes)
