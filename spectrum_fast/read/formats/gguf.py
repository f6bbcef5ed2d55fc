"""GGUF: weights in blocks along a row, each with its scale, and rows of queries and keys in another order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES, decodable
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.read.formats.format import Format, PackedWeight, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan

_CHUNK_BYTES = 1 << 20
"""Stored bytes that are decoded at once: their numbers and what comes between stay in cache."""


def read_gguf(stored: Tensor, *, kind: str, heads: int = 0) -> Tensor:
    """The numbers of a GGUF tensor, in the order of the model's rows.

    Args:
        stored: uint8 [rows, bytes of a row] of a packed type; or numbers [rows, columns].
        kind: the storage type.
        heads: :attr:`TensorRef.interleaved_heads`.

    Returns:
        [rows, columns]; of a packed type in float32, each value a product of integers and float16 numbers that is exact
        in float32, less or plus another such product: rounded at most once (relative error 2^-24 of the result).

    Source: ggml ``ggml-quants.c``; package ``gguf``, ``quants.py``, which gives the same bits.
    """
    weight = stored
    if kind in BLOCK_TYPES:
        elements, nbytes = BLOCK_TYPES[kind]
        rows, row_bytes = stored.shape
        weight = torch.empty(rows, row_bytes // nbytes * elements, device=stored.device)
        step = max(1, _CHUNK_BYTES // row_bytes)
        for first in range(0, rows, step):
            part = stored[first : first + step]
            weight[first : first + step] = DECODERS[kind](part.reshape(-1, nbytes)).reshape(part.shape[0], -1)
    if heads:
        weight = weight.unflatten(0, (heads, -1, 2)).swapaxes(1, 2).reshape(weight.shape)
    return weight


def _block_of_32(blocks: Tensor, *, bits: int, has_offset: bool) -> Tensor:
    """``d q + m``, or ``d (q - 2^(bits - 1))`` without an offset m; d and m are float16.

    They are followed, of five bits, by the highest of each code in four bytes; then come the low four in 16 bytes,
    whose high halves are the second half of the block.
    """
    begin = 4 if has_offset else 2
    codes = torch.cat((blocks[:, -16:] & 15, blocks[:, -16:] >> 4), dim=1)
    if bits == 5:
        codes |= (_shifted(blocks[:, begin : begin + 4, None], 1, 8) & 1).flatten(1) << 4
    if has_offset:
        return _half(blocks, 0) * codes + _half(blocks, 2)
    return _half(blocks, 0) * (codes.float() - (1 << (bits - 1)))


def _q8_0(blocks: Tensor) -> Tensor:
    """``d q``: d float16, then 32 int8."""
    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8)


def _q4_k(blocks: Tensor) -> Tensor:
    """``(d s_k) q - (e t_k) in eight groups of 32: d and e float16, six-bit s and t in 12 bytes, 128 bytes of codes."""
    codes = _halves(blocks[:, 16:].unflatten(1, (4, 1, 32)))
    return _scaled_groups(blocks, codes)


def _q5_k(blocks: Tensor) -> Tensor:
    """As Q4_K, with the fifth bits of all codes, bit k for group k, in 32 bytes before the others."""
    high = _shifted(blocks[:, None, 16:48], 1, 8) & 1
    return _scaled_groups(blocks, _halves(blocks[:, 48:].unflatten(1, (4, 1, 32))) | high << 4)


def _q6_k(blocks: Tensor) -> Tensor:
    """``(d s_k) (q - 32)`` in 16 groups of 16: 128 bytes of low bits, 64 of the two high ones, int8 s, d float16."""
    low = _halves(blocks[:, :128].unflatten(1, (2, 1, 64))).flatten(1)
    high = (_shifted(blocks[:, 128:192].unflatten(1, (2, 1, 32)), 2, 4) & 3).flatten(1)
    codes = (low | high << 4).float().unflatten(1, (16, 16)) - 32
    return (_half(blocks, 208) * blocks[:, 192:208].view(torch.int8))[:, :, None] * codes


def _half(blocks: Tensor, place: int) -> Tensor:
    """The float16 number at a byte of each block, as float32 [blocks, 1]."""
    return blocks[:, place : place + 2].contiguous().view(torch.float16).float()


def _shifted(stored: Tensor, bits: int, count: int) -> Tensor:
    """Bytes shifted right by 0, ``bits``, 2 ``bits``, ... along the axis before the last, or the last if it is 1."""
    shifts = torch.arange(0, bits * count, bits, dtype=torch.uint8, device=stored.device)
    return stored >> (shifts if stored.shape[-1] == 1 else shifts[:, None])


def _halves(codes: Tensor) -> Tensor:
    """[blocks, runs, 1, width] to [blocks, groups, 32]: of each run of bytes the low halves, then the high ones."""
    return (_shifted(codes, 4, 2) & 15).flatten(1).unflatten(1, (-1, 32))


def _scaled_groups(blocks: Tensor, codes: Tensor) -> Tensor:
    """``(d s_k) q - (e t_k)``; of the 12 bytes with s and t, four hold the low bits of the last four of both."""
    first, second, third = blocks[:, 4:16].unflatten(1, (3, 4)).unbind(1)
    scales = torch.cat((first & 63, third & 15 | first >> 2 & 48), dim=1)
    offsets = torch.cat((second & 63, third >> 4 | second >> 2 & 48), dim=1)
    return (_half(blocks, 0) * scales)[:, :, None] * codes - (_half(blocks, 2) * offsets)[:, :, None]


DECODERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": partial(_block_of_32, bits=4, has_offset=False),
    "Q4_1": partial(_block_of_32, bits=4, has_offset=True),
    "Q5_0": partial(_block_of_32, bits=5, has_offset=False),
    "Q5_1": partial(_block_of_32, bits=5, has_offset=True),
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""From blocks, uint8 [blocks, bytes], to float32 [blocks, ...] of as many numbers as a block has."""


def _plan(packed: PackedWeight) -> WeightPlan:
    ref = packed.codes
    kind, shape = ref.dtype, ref.shape
    layout, stored = f"GGUF {kind}", ref
    if kind in BLOCK_TYPES:
        if kind not in DECODERS:
            raise refuse(packed, f"of its types {', '.join(DECODERS)} are read")
        if len(shape) not in (2, 3):
            raise refuse(packed, "expected a matrix, or one matrix per expert")
        elements, nbytes = BLOCK_TYPES[kind]
        stored = replace(ref, shape=(*shape[:-1], shape[-1] // elements * nbytes))
        layout += ", whose rounding adds noise to the bulk"
    elif not decodable(kind):
        raise refuse(packed)
    decoder = partial(read_gguf, kind=kind, heads=ref.interleaved_heads)
    return WeightPlan(module_name(ref.name), ref.name, stored, {}, decoder, layout, shape)


GGUF = Format(
    title="GGUF",
    codes="",
    companions={},
    alone=lambda _: True,
    accepts=lambda ref: ref.dtype in BLOCK_TYPES or ref.interleaved_heads > 0,
    plan=_plan,
    row="GGUF Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K (and F32, F16, BF16) | file `*.gguf`, type of the tensor "
    "| llama.cpp | yes; Q2_K, Q3_K, IQ*, TQ*, MXFP4 and NVFP4 are refused | gguf, transformers (`test_gguf.py`)",
)
