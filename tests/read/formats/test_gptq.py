"""GPTQ as GPTQModel packs and decodes it.

The library needs a newer torch than this project pins, so what it made of a few small layers is kept in
``gptq.safetensors`` (written by ``python tests/read/formats/test_gptq.py`` with GPTQModel 7.7.0 at hand);
where it is installed, the same cases are built anew.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.gptq import read_gptq

DATA = Path(__file__).with_name("gptq.safetensors")
INPUTS, OUTPUTS, GROUP = 64, 32, 16
CASES = {
    f"int{bits}, {'any order' if reordered else 'in order'}, {'v2' if second else 'v1'}": (bits, reordered, second)
    for bits, reordered, second in itertools.product((4, 8), (False, True), (False, True))
}
ROLES = ("qweight", "scales", "qzeros", "g_idx", "decoded")


def build(bits: int, reordered: bool, second: bool) -> dict[str, torch.Tensor]:
    """A layer packed by the library, its tensors as saved, and the weight that the library decodes, float32."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    generator = torch.Generator().manual_seed(bits + 2 * reordered + second)
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator)
    index = torch.arange(INPUTS) // GROUP
    if reordered:
        index = index[torch.randperm(INPUTS, generator=generator)]
    top = (1 << bits) - 1
    low, high = ((f(weight[:, index == g], 1) for g in range(INPUTS // GROUP)) for f in (torch.amin, torch.amax))
    low, high = torch.stack(list(low), 1).clamp(max=-0.01), torch.stack(list(high), 1).clamp(min=0.01)
    scales = ((high - low) / top).half().float()
    zeros = (-low / scales).round().clamp(1, top - 1)
    layer = TorchLinear(
        bits=bits, group_size=GROUP, sym=False, desc_act=reordered, in_features=INPUTS, out_features=OUTPUTS, bias=False
    )
    linear = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
    linear.weight.data = weight
    layer.pack_original(linear, scales, zeros, index.to(torch.int32))
    layer.post_init()
    decoded = layer.dequantize_weight().detach().float().T.contiguous()
    if not second:
        convert_gptq_v2_to_v1_format_module(layer, SimpleNamespace(bits=bits, pack_dtype=torch.int32))
    tensors = {role: getattr(layer, role).detach().clone() for role in ROLES[:-1]}
    return {**tensors, "decoded": decoded}


def check(case: dict[str, torch.Tensor], second: bool, in_order: bool) -> None:
    parts = [case[role] for role in ROLES[:3]]
    found = decode(read_gptq(*parts, case["g_idx"], stored_less_one=not second))
    # The library multiplies in float16.
    torch.testing.assert_close(found, case["decoded"], rtol=2**-10, atol=0)
    if in_order:
        assert torch.equal(found, decode(read_gptq(*parts, None, stored_less_one=not second)))


@pytest.mark.parametrize("name", CASES)
def test_what_the_library_packed_is_what_it_decodes(name):
    _, reordered, second = CASES[name]
    stored = load_file(DATA)
    check({role: stored[f"{name}.{role}"] for role in ROLES}, second, not reordered)


@pytest.mark.parametrize("name", CASES)
def test_the_installed_library_packs_the_same(name):
    pytest.importorskip("gptqmodel")
    bits, reordered, second = CASES[name]
    check(build(bits, reordered, second), second, not reordered)


def test_the_scale_is_applied_in_float32():
    stored = load_file(DATA)
    part = {role: stored[f"int4, any order, v2.{role}"] for role in ROLES}
    codes = read_gptq(part["qweight"], part["scales"], part["qzeros"], part["g_idx"], stored_less_one=False)
    found = decode(codes).double()
    index = part["g_idx"].long()
    nibbles = torch.stack([part["qweight"] >> (4 * k) & 15 for k in range(8)], 1).reshape(INPUTS, OUTPUTS)
    points = torch.stack([part["qzeros"] >> (4 * k) & 15 for k in range(8)], 2).reshape(-1, OUTPUTS)
    exact = (nibbles - points[index]).double() * part["scales"].double()[index]
    assert torch.equal(found, exact.T)  # seven bits times eleven fit float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_idx": torch.full((64,), -1, dtype=torch.int32)}, "g_idx: expected 64 groups below 4"),
        ({"g_idx": torch.full((64,), 4)}, "g_idx: expected 64 groups below 4"),
        ({"qzeros": torch.full((4, 4), -1, dtype=torch.int32)}, "stored as 15 and stands for 16"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    good = {
        "codes": torch.zeros(8, 32, dtype=torch.int32),
        "scales": torch.ones(4, 32),
        "qzeros": torch.zeros(4, 4, dtype=torch.int32),
        "g_idx": None,
    }
    with pytest.raises(UnsupportedDtypeError, match=message):
        read_gptq(**{**good, **change}, stored_less_one=True)


if __name__ == "__main__":
    built = {f"{name}.{role}": value for name, case in CASES.items() for role, value in build(*case).items()}
    save_file({key: value.contiguous() for key, value in built.items()}, DATA)
