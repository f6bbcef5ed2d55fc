"""Damaged and contradictory weights: refused, or decoded to what the format's own library makes of the same tensors.

Each case is a weight that the library wrote; a mutation drops, cuts, turns, retypes or changes one of its tensors or
one thing that its configuration says. What we decode, the library has to decode alike; anything but values or a refusal
is an error. (Where we refuse, the library is not asked: some of its kernels read past their operands.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.checkpoint.dtypes import storage_name
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.config import read_quantisation_config
from spectrum_fast.read.formats.planning import plan_packed
from spectrum_fast.read.formats.recognition import find_packed

MUTANTS = 100
ROWS, COLUMNS = 64, 128


@dataclass
class Case:
    """Tensors by name, the configuration, and how the library reads them; ``fixed`` stays as it is."""

    tensors: dict[str, torch.Tensor]
    section: dict[str, Any]
    library: Callable[[dict[str, torch.Tensor], dict[str, Any]], torch.Tensor]
    fixed: tuple[str, ...] = ()


def ours(tensors: dict[str, torch.Tensor], section: dict[str, Any]) -> torch.Tensor | None:
    """The decoded weight; None where it is refused, or no weight is recognised."""
    refs = [
        TensorRef(name, Path("m"), storage_name(t.dtype), tuple(t.shape), 0, t.nbytes) for name, t in tensors.items()
    ]
    packed = find_packed(refs).packed
    if len(packed) != 1:
        return None
    try:
        config = read_quantisation_config({"quantization_config": section})
        plans = plan_packed(next(iter(packed.values())), config)
        parts = []
        for plan in plans:
            cut = slice(None) if plan.expert is None else plan.expert
            companions = {role: tensors[ref.name][cut] for role, ref in plan.companions.items()}
            parts.append(decode_weight(plan, tensors[plan.main.name][cut], companions))
    except UnsupportedDtypeError:
        return None
    return torch.stack(parts) if plans[0].expert is not None else parts[0]


def mutate(case: Case, rng: random.Random) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, section = dict(case.tensors), deepcopy(case.section)
    name = rng.choice([name for name in tensors if name not in case.fixed])
    value = tensors[name]
    kind = rng.choice(["drop", "cut", "grow", "turn", "retype", "flip", "flip", "empty", "say", "say"])
    axis = rng.randrange(value.ndim) if value.ndim else 0
    if kind == "drop":
        del tensors[name]
    elif kind == "cut" and value.ndim:
        tensors[name] = value.narrow(axis, 0, value.shape[axis] // 2).contiguous()
    elif kind == "grow" and value.ndim:
        tensors[name] = value.repeat_interleave(2, axis)
    elif kind == "turn" and value.ndim > 1:
        tensors[name] = value.mT.contiguous()
    elif kind == "retype" and value.is_floating_point():
        tensors[name] = value.to(rng.choice([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
    elif kind == "flip" and value.numel():
        flat = value.clone().view(-1)
        flat.view(torch.uint8)[rng.randrange(flat.nbytes)] ^= 1 << rng.randrange(6)
        tensors[name] = flat.view(value.shape)
    elif kind == "empty" and value.ndim:
        tensors[name] = value.narrow(axis, 0, 0).contiguous()
    elif kind == "say" and section:
        change(section, rng)
    return tensors, section


def change(section: dict[str, Any], rng: random.Random) -> None:
    """Another value for something that the configuration says of the weights."""
    groups = section.get("config_groups")
    said = groups["g"]["weights"] if groups else section
    key = rng.choice(sorted(said))
    others = {
        "num_bits": [3, 4, 8],
        "bits": [3, 4, 8],
        "group_size": [-1, 16, 32, 64],
        "strategy": ["tensor", "channel", "group", "block"],
        "symmetric": [True, False],
        "type": ["int", "float"],
        "weight_block_size": [[32, 32], [32, 64], [64, 32], [16, 16], [64, 64]],
        "block_structure": [[32, 32], [32, 64], [64, 32]],
        "quant_method": ["fp8", "compressed-tensors", "gptq", "awq"],
    }
    if key in others:
        said[key] = rng.choice(others[key])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def compressed(layout: str, **said: Any) -> Case:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressor = compressors.BaseCompressor.get_value_from_registry(layout)

    def scheme(weights: dict[str, Any]) -> Any:
        return quantization.QuantizationScheme(targets=["L"], weights=quantization.QuantizationArgs(**weights))

    def library(tensors: dict[str, torch.Tensor], section: dict[str, Any]) -> torch.Tensor:
        stored = {name.removeprefix("m."): value for name, value in tensors.items()}
        # It computes in the type of the scale.
        stored["weight_scale"] = stored["weight_scale"].float()
        return compressor.decompress(stored, scheme(section["config_groups"]["g"]["weights"]))["weight"]

    grids = {"tensor": (1,), "channel": (ROWS, 1), "group": (ROWS, COLUMNS // 32), "block": (ROWS // 32, COLUMNS // 64)}
    grid = grids[said["strategy"]]
    state = {
        "weight": torch.randn(ROWS, COLUMNS, generator=generator()),
        "weight_scale": torch.rand(grid, generator=generator()) * 0.1 + 0.1,
    }
    if not said["symmetric"]:
        state["weight_zero_point"] = torch.randint(-3, 3, grid, generator=generator(), dtype=torch.int8)
    section = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"g": {"weights": said}}}
    stored = compressor.compress(state, scheme(said))
    return Case({f"m.{name}": value.contiguous() for name, value in stored.items()}, section, library)


def deepseek() -> Case:
    finegrained = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = torch.randn(ROWS, COLUMNS, generator=generator()).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 2, generator=generator()) + 0.1
    return Case(
        {"m.weight": codes, "m.weight_scale_inv": scale},
        {"quant_method": "fp8", "weight_block_size": [32, 64]},
        lambda t, _: finegrained.Fp8Dequantize(None)._dequantize_one(*t.values(), output_dtype=torch.float32),
    )


def gpt_oss() -> Case:
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = torch.randint(0, 256, (2, 8, 4, 16), dtype=torch.uint8, generator=generator())
    scales = torch.randint(100, 140, (2, 8, 4), dtype=torch.uint8, generator=generator())
    return Case(
        {"experts.up_blocks": blocks, "experts.up_scales": scales},
        {"quant_method": "mxfp4"},
        lambda t, _: mxfp4.convert_moe_packed_tensors(*t.values(), dtype=torch.bfloat16).cpu().mT,
    )


def bitsandbytes(kind: str, *, nested: bool) -> Case:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(ROWS, COLUMNS, generator=generator())
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type=kind)
    parts = {f"m.weight.{key}": value for key, value in state.as_dict(packed=True).items()}

    def library(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> torch.Tensor:
        stored = {name.removeprefix("m.weight."): value for name, value in tensors.items() if name != "m.weight"}
        found = functional.QuantState.from_dict(stored, torch.device("cpu"))
        shape = found.shape
        # Its kernel for the CPU lets blocks begin anew in every row (tests/read/formats/test_bitsandbytes.py).
        found.shape, found.dtype = torch.Size((math.prod(shape) // found.blocksize, found.blocksize)), torch.float32
        return functional.dequantize_4bit(tensors["m.weight"].view(-1, 1), found).reshape(shape)

    # It has the code book in its kernels and does not look at the stored one.
    fixed = ("m.weight.quant_map", f"m.weight.quant_state.bitsandbytes__{kind}")
    return Case({"m.weight": codes, **parts}, {}, library, fixed)


def awq() -> Case:
    autoawq = pytest.importorskip("compressed_tensors.entrypoints.convert.converters.autoawq")
    unpack = compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=False)

    def library(tensors: dict[str, torch.Tensor], section: dict[str, Any]) -> torch.Tensor:
        groups = tensors["m.scales"].shape[0]
        size = tensors["m.qweight"].shape[0] // groups
        converted = dict(autoawq.AutoAWQConverter(group_size=size, ignore=()).process(dict(tensors)))
        said = deepcopy(unpack.section)
        said["config_groups"]["g"]["weights"]["group_size"] = size
        return unpack.library(converted, said)

    words = {
        name: torch.randint(-(2**31), 2**31, shape, generator=generator(), dtype=torch.int32)
        for name, shape in (("m.qweight", (96, 4)), ("m.qzeros", (3, 4)))
    }
    scales = torch.rand(3, 32, generator=generator()).half() + 0.1
    section = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    return Case({**words, "m.scales": scales}, section, library)


FLOAT, INT = {"num_bits": 8, "type": "float", "symmetric": True}, {"num_bits": 8, "type": "int"}
CASES: dict[str, Callable[[], Case]] = {
    "float-quantized, tensor": lambda: compressed("float-quantized", strategy="tensor", **FLOAT),
    "float-quantized, channel": lambda: compressed("float-quantized", strategy="channel", **FLOAT),
    "float-quantized, group": lambda: compressed("float-quantized", strategy="group", group_size=32, **FLOAT),
    "float-quantized, block": lambda: compressed(
        "float-quantized", strategy="block", block_structure=[32, 64], **FLOAT
    ),
    "int-quantized": lambda: compressed("int-quantized", strategy="channel", symmetric=True, **INT),
    "int-quantized, zero points": lambda: compressed("int-quantized", strategy="channel", symmetric=False, **INT),
    "pack-quantized int8": lambda: compressed("pack-quantized", strategy="channel", symmetric=True, **INT),
    "pack-quantized int4": lambda: compressed(
        "pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=True
    ),
    "pack-quantized int4, zero points": lambda: compressed(
        "pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=False
    ),
    "deepseek": deepseek,
    "mxfp4": gpt_oss,
    "nf4": lambda: bitsandbytes("nf4", nested=False),
    "fp4, nested": lambda: bitsandbytes("fp4", nested=True),
    "awq": awq,
}


@pytest.mark.parametrize("name", CASES)
def test_refused_or_as_the_library_reads_it(name: str) -> None:
    case = CASES[name]()
    rng = random.Random(name)  # noqa: S311
    whole = ours(case.tensors, case.section)
    assert whole is not None
    decoded = refused = 0
    for number in range(MUTANTS):
        tensors, section = mutate(case, rng)
        found = ours(tensors, section)
        if found is None:
            refused += 1
            continue
        decoded += 1
        expected = case.library(tensors, section)
        assert found.shape == expected.shape, (number, section)
        assert torch.equal(found.float().nan_to_num(), expected.float().nan_to_num()), (number, section)
    assert min(decoded, refused) > MUTANTS // 10, (decoded, refused)
