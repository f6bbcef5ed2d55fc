"""Layouts that are known by name and not decoded: their codes are refused, and nothing beside them is scored."""

from __future__ import annotations

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.format import Format


def _any(_: TensorRef) -> bool:
    return True


def _mlx_codes(ref: TensorRef) -> bool:
    """MLX writes its codes under the plain name."""
    return ref.dtype in ("U32", "U8")


REFUSED: tuple[Format, ...] = (
    Format(
        title="grouped codes (MLX)",
        codes=".weight",
        companions={".scales": "scales", ".biases": "biases"},
        marks=("scales",),
        accepts=_mlx_codes,
        row=("grouped codes", "`weight` U32 + `scales`, `biases`", "MLX", "refused", "`test_recognition.py`"),
    ),
    Format(
        title="NVFP4 (ModelOpt)",
        codes=".weight",
        companions={".weight_scale_2": "weight_scale_2"},
        marks=("weight_scale_2",),
        telling={".weight_scale_2": ".weight"},
        row=(
            "NVFP4",
            "`weight` + `weight_scale_2`, or `weight_packed` U8",
            "ModelOpt, compressed-tensors",
            "refused",
            "`test_recognition.py`",
        ),
    ),
    Format(
        title="int8 (EETQ)",
        codes=".weight",
        companions={".weight_scales": "weight_scales"},
        marks=("weight_scales",),
        telling={".weight_scales": ".weight"},
        row=("int8", "`weight` + `weight_scales`", "EETQ", "refused", "`test_recognition.py`"),
    ),
    Format(
        title="HQQ",
        codes=".W_q",
        companions={
            f".{role}": role for role in ("scale", "zero", "meta", "nbits", "group_size", "axis", "shape", "packing")
        },
        alone=_any,
        row=("HQQ", "`W_q`", "HQQ", "refused", "`test_recognition.py`"),
    ),
    Format(
        title="AQLM",
        codes=".codes",
        companions={".codebooks": "codebooks", ".scales": "scales"},
        marks=("codebooks",),
        row=("AQLM", "`codes` + `codebooks`", "AQLM", "refused", "`test_recognition.py`"),
    ),
    *(
        Format(
            title="quanto",
            codes=f".{codes}",
            companions={"._scale": "_scale", "._shift": "_shift"},
            marks=("_scale",),
            row=("quanto", "`_data` or `_packed` + `_scale`", "optimum-quanto", "refused", "`test_recognition.py`")
            if codes == "_data"
            else (),
        )
        for codes in ("_data", "_packed")
    ),
)
