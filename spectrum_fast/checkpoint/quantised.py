"""Packed and quantised layouts, recognised by the names that their writers give, so that raw codes are never scored.

A quantised weight is stored as codes and companions: scales, zero points, code books. The codes are not the weight, and
the companions, although often stored as floats, are no weight at all. This version decodes none of these layouts: the
codes are refused by name and the companions are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spectrum_fast.checkpoint.dtypes import SUPPORTED_DTYPES, decodable
from spectrum_fast.checkpoint.files import shorten
from spectrum_fast.checkpoint.tensor_ref import TensorRef
from spectrum_fast.errors import UnsupportedDtypeError


@dataclass(frozen=True)
class QuantisedTensors:
    """Which tensors of a checkpoint are codes, and which only belong to codes.

    Attributes:
        packed: tensor name -> name of its format; these must be decoded before they mean anything.
        companions: tensor name -> name of the packed tensor or module that it belongs to; never scored.
    """

    packed: Mapping[str, str]
    companions: Mapping[str, str]

    def require_plain(self, ref: TensorRef) -> None:
        """Refuse a tensor that holds codes.

        Raises:
            UnsupportedDtypeError: names the tensor, its file, its format and what to do.
        """
        layout = self.packed.get(ref.name)
        if layout is not None:
            raise UnsupportedDtypeError(
                f"tensor {shorten(ref.name)} in {ref.file}: stored as {layout} ({ref.dtype} codes with separate "
                f"scales), which this version does not decode; expected plain {', '.join(SUPPORTED_DTYPES)}: scan the "
                "unquantised checkpoint"
            )


# Companions of `X.weight`, written after the stem `X.`; the first table marks the weight as quantised, the second does
# not: an activation's scale may stand beside a plain weight.
_WEIGHT_COMPANIONS = {
    "weight_scale_inv": "FP8 with block scales (DeepSeek)",
    "weight_scale": "scaled codes (compressed-tensors or ModelOpt)",
    "weight_scale_2": "NVFP4 (ModelOpt)",
    "weight_scales": "int8 (EETQ)",
    "SCB": "int8 (bitsandbytes)",
    "weight_format": "int8 (bitsandbytes)",
    "weight_zero_point": "scaled codes (compressed-tensors)",
}
_LOOSE_COMPANIONS = (
    "input_scale",
    "input_zero_point",
    "output_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "prob_scale",
    "input_global_scale",
)
# Companions written after the full parameter name, `X.weight.absmax`.
_ATTACHED_COMPANIONS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "SCB")
# Layouts whose codes have a name of their own: stem -> (companions, required ones, format).
_CODE_NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "qweight": (("qzeros", "scales", "g_idx", "bias"), ("scales",), "packed int4/int8"),
    "weight_packed": (
        (
            "weight_scale",
            "weight_shape",
            "weight_zero_point",
            "weight_g_idx",
            "weight_global_scale",
            "input_global_scale",
            "input_scale",
        ),
        (),
        "packed codes (compressed-tensors)",
    ),
    "W_q": (("scale", "zero", "meta", "nbits", "group_size", "axis", "shape", "packing"), (), "HQQ"),
    "codes": (("codebooks", "scales"), ("codebooks",), "AQLM"),
}


def quantised_companions(tensors: Iterable[TensorRef]) -> QuantisedTensors:
    """Find packed weights and their companions by name, across all files of a checkpoint.

    A plain float weight with a scale beside it (``X.weight`` in BF16 and ``X.weight_scale``) is refused as well: either
    the scale has to be applied first or the checkpoint is inconsistent, and a guess would give a wrong score.

    Args:
        tensors: all tensors of the checkpoint; scales may lie in another shard than their codes.

    Returns:
        The packed tensors with their formats, and the companions with their owners.
    """
    types = {ref.name: ref.dtype for ref in tensors}
    packed: dict[str, str] = {}
    companions: dict[str, str] = {}
    for name, dtype in types.items():
        stem, dot, last = name.rpartition(".")
        stem += dot
        if last == "weight":
            _find_weight(name, stem, dtype, types, packed, companions)
        elif last in _CODE_NAMES:
            _find_code_names(name, stem, last, types, packed, companions)
        elif name.endswith("_blocks") and f"{name[:-7]}_scales" in types:
            packed[name] = "MXFP4 (gpt-oss)"
            companions[f"{name[:-7]}_scales"] = name
        elif last in ("_data", "_packed") and f"{stem}_scale" in types:
            packed[name] = "quanto"
            companions.update({f"{stem}{part}": name for part in ("_scale", "_shift") if f"{stem}{part}" in types})
        elif not decodable(dtype):
            for suffix in ("_scale_inv", "_scale"):
                if f"{name}{suffix}" in types:
                    packed[name] = f"scaled {dtype} codes"
                    companions[f"{name}{suffix}"] = name
        if last in _LOOSE_COMPANIONS and name not in companions:
            companions[name] = stem.rstrip(".")
    return QuantisedTensors(MappingProxyType(packed), MappingProxyType(companions))


def _find_weight(
    name: str, stem: str, dtype: str, types: dict[str, str], packed: dict[str, str], companions: dict[str, str]
) -> None:
    for suffix, layout in _WEIGHT_COMPANIONS.items():
        if f"{stem}{suffix}" in types:
            packed[name] = layout
            companions[f"{stem}{suffix}"] = name
    for suffix in _ATTACHED_COMPANIONS:
        if f"{name}.{suffix}" in types:
            packed[name] = "NF4/FP4 (bitsandbytes)" if suffix != "SCB" else "int8 (bitsandbytes)"
            companions[f"{name}.{suffix}"] = name
    for kind in ("nf4", "fp4"):
        state = f"{name}.quant_state.bitsandbytes__{kind}"
        if state in types:
            packed[name] = f"{kind.upper()} (bitsandbytes)"
            companions[state] = name
    # MLX writes U32 codes under the plain name, with `scales` and `biases` beside it.
    if dtype in ("U32", "U8") and f"{stem}scales" in types:
        packed[name] = "grouped codes (MLX)"
        companions.update({f"{stem}{part}": name for part in ("scales", "biases") if f"{stem}{part}" in types})


def _find_code_names(
    name: str, stem: str, last: str, types: dict[str, str], packed: dict[str, str], companions: dict[str, str]
) -> None:
    known, required, layout = _CODE_NAMES[last]
    if any(f"{stem}{part}" not in types for part in required):
        return
    if last == "qweight":
        layout = f"{layout} ({'GPTQ' if f'{stem}g_idx' in types else 'AWQ or GPTQ'})"
    packed[name] = layout
    companions.update({f"{stem}{part}": name for part in known if part != "bias" and f"{stem}{part}" in types})
