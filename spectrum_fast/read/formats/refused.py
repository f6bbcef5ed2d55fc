"""Layouts that are known by name and not decoded: their codes are refused, and nothing beside them is scored."""

from __future__ import annotations

from typing import Any

from spectrum_fast.read.formats.format import Format


def _refused(title: str, codes: str, companions: str, row: str = "", **more: Any) -> Format:
    """A format whose codes are called ``.<codes>``, marked by the first of its companions."""
    roles = companions.split()
    row = f"{row} | refused | `test_recognition.py`" if row else ""
    endings = {f".{role}": role for role in roles}
    return Format(title=title, codes=f".{codes}", companions=endings, marks=(roles[0],), row=row, **more)


REFUSED: tuple[Format, ...] = (
    # MLX writes its codes under the plain name.
    _refused(
        "grouped codes (MLX)",
        "weight",
        "scales biases",
        "grouped codes | `weight` U32 + `scales`, `biases` | MLX",
        accepts=lambda ref: ref.dtype in ("U32", "U8"),
    ),
    _refused(
        "NVFP4 (ModelOpt)",
        "weight",
        "weight_scale_2",
        "NVFP4 | `weight` + `weight_scale_2`, or `weight_packed` U8 | ModelOpt, compressed-tensors",
        telling={".weight_scale_2": ".weight"},
    ),
    _refused(
        "int8 (EETQ)",
        "weight",
        "weight_scales",
        "int8 | `weight` + `weight_scales` | EETQ",
        telling={".weight_scales": ".weight"},
    ),
    _refused(
        "HQQ",
        "W_q",
        "scale zero meta nbits group_size axis shape packing",
        "HQQ | `W_q` | HQQ",
        alone=lambda _: True,
    ),
    _refused("AQLM", "codes", "codebooks scales", "AQLM | `codes` + `codebooks` | AQLM"),
    _refused("quanto", "_data", "_scale _shift", "quanto | `_data` or `_packed` + `_scale` | optimum-quanto"),
    _refused("quanto", "_packed", "_scale _shift"),
)
