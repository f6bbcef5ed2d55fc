"""GPTQ: integers of 4 or 8 bits packed along the input features, with a group for each input feature."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode.packed_int import unpack_words


def decode_gptq(
    codes: Tensor, scales: Tensor, qzeros: Tensor, group_index: Tensor | None, *, stored_less_one: bool
) -> Tensor:
    """``W[j, i] = (q[i, j] - z[g(i), j]) * scales[g(i), j]``; z is ``qzeros``, plus one in the first format.

    A word of ``codes`` holds ``32 / bits`` input features of one output, lowest bits first; a word of ``qzeros`` as
    many outputs of one group. Which of 4 or 8 bits it is follows from the shapes.

    Args:
        codes: int32 [in_features * bits / 32, out_features].
        scales: float [groups, out_features].
        qzeros: int32 [groups, out_features * bits / 32].
        group_index: group of each input feature (``desc_act`` puts them in any order), or None where groups are runs of
            equal length.
        stored_less_one: zero points are stored less one (``checkpoint_format`` ``gptq``); not so in ``gptq_v2``.

    Returns:
        [out_features, in_features] float32; relative error 2^-24.

    Raises:
        UnsupportedDtypeError: the shapes do not fit, or a zero point of the first format is the largest there is:
            readers disagree whether it wraps to zero.

    Source: GPTQModel (``nn_modules/qlinear``), which writes and reads these files.
    """
    groups, outputs = scales.shape
    fitting = [bits for bits in (4, 8) if 32 * qzeros.shape[1] == outputs * bits]
    if len(fitting) != 1 or codes.shape[1] != outputs or qzeros.shape[0] != groups:
        raise UnsupportedDtypeError(
            f"scales {tuple(scales.shape)} and qzeros {tuple(qzeros.shape)} do not fit codes {tuple(codes.shape)} of 4 "
            "or 8 bits"
        )
    bits = fitting[0]
    inputs = codes.shape[0] * 32 // bits
    points = unpack_words(qzeros, bits)
    if stored_less_one:
        largest = float((1 << bits) - 1)
        if bool((points == largest).any()):
            raise UnsupportedDtypeError(
                f"a zero point is stored as {int(largest)} and stands for {int(largest) + 1}, which readers of the "
                "format do not agree on; expected checkpoint_format gptq_v2"
            )
        points += 1
    if group_index is None:
        if inputs % groups:
            raise UnsupportedDtypeError(f"{groups} groups do not divide {inputs} input features")
        index = torch.arange(groups, device=codes.device).repeat_interleave(inputs // groups)
    else:
        index = group_index.reshape(-1).to(torch.int64)
        if index.numel() != inputs or int(index.min()) < 0 or int(index.max()) >= groups:
            raise UnsupportedDtypeError(f"g_idx: expected {inputs} groups below {groups}")
    weight = unpack_words(codes.T, bits)
    weight -= points.T[:, index]
    return weight.mul_(scales.to(torch.float32).T[:, index])
