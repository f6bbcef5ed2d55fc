"""Packed and quantised layouts, recognised by the names that their writers give, so that raw codes are never scored.

A quantised weight is stored as codes and companions: scales, zero points, code books. The codes are not the weight, and
the companions, although often stored as floats, are no weight at all. Here they are found by their names, across all
files; :mod:`spectrum_fast.read.checkpoint.decoding` says which of them can be decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef


@dataclass(frozen=True)
class PackedWeight:
    """Codes, and the tensors that are needed to read them.

    Attributes:
        codes: the packed tensor.
        layout: name of the format for people.
        companions: role -> tensor. The role is the writer's suffix: ``weight_scale_inv``, ``absmax``, ``qzeros``; it is
            ``quant_state`` for the description that bitsandbytes adds.
        missing: names of tensors that the layout needs and no file holds.
    """

    codes: TensorRef
    layout: str
    companions: Mapping[str, TensorRef]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantisedTensors:
    """Which tensors of a checkpoint are codes, and which only belong to codes.

    Attributes:
        packed: tensor name -> what it is; these must be decoded before they mean anything. A companion whose codes are
            missing stands here too, with the codes in ``missing``, so that it is reported and not scored.
        companions: tensor name -> name of the packed tensor or module that it belongs to; never scored.
    """

    packed: Mapping[str, PackedWeight]
    companions: Mapping[str, str]


# Companions of `X.weight`, written after the stem `X.`; the first table marks the weight as quantised, the second does
# not: an activation's scale may stand beside a plain weight.
_WEIGHT_COMPANIONS = {
    "weight_zero_point": "scaled codes (compressed-tensors)",
    "weight_scale": "scaled codes (compressed-tensors or ModelOpt)",
    "weight_scale_inv": "scaled codes (DeepSeek)",
    "weight_scale_2": "NVFP4 (ModelOpt)",
    "weight_scales": "int8 (EETQ)",
    "SCB": "int8 (bitsandbytes)",
    "weight_format": "int8 (bitsandbytes)",
}
_LOOSE_COMPANIONS = (
    "input_scale",
    "input_scale_ub",
    "input_zero_point",
    "output_scale",
    "activation_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "prob_scale",
    "input_global_scale",
)
# Companions written after the full parameter name, `X.weight.absmax`.
_ATTACHED_COMPANIONS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "SCB")
_STATE_SUFFIXES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
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
# Suffixes that nothing but a companion carries, with the codes that each belongs to.
_ORPHANS = {
    **{suffix: "weight" for suffix in _WEIGHT_COMPANIONS if suffix != "weight_format"},
    "weight_shape": "weight_packed",
    "weight_g_idx": "weight_packed",
    "weight_global_scale": "weight_packed",
}


def quantised_companions(tensors: Iterable[TensorRef]) -> QuantisedTensors:
    """Find packed weights and their companions by name, across all files of a checkpoint.

    A plain float weight with a scale beside it (``X.weight`` in BF16 and ``X.weight_scale``) counts as packed: either
    the scale has to be applied first or the checkpoint is inconsistent, and a guess would give a wrong score.

    Args:
        tensors: all tensors of the checkpoint; scales may lie in another shard than their codes.

    Returns:
        The packed tensors with their formats and companions, and the companions with their owners.
    """
    finder = _Finder({ref.name: ref for ref in tensors})
    for ref in finder.refs.values():
        finder.look_at(ref)
    for ref in finder.refs.values():
        finder.look_for_orphan(ref)
    return QuantisedTensors(MappingProxyType(finder.packed), MappingProxyType(finder.companions))


class _Finder:
    """Collects what is found in one checkpoint."""

    def __init__(self, refs: Mapping[str, TensorRef]) -> None:
        self.refs = refs
        self.packed: dict[str, PackedWeight] = {}
        self.companions: dict[str, str] = {}

    def look_at(self, ref: TensorRef) -> None:
        """Recognise codes by their own name or by their companions' names."""
        stem, dot, last = ref.name.rpartition(".")
        stem += dot
        if last == "weight":
            self._look_at_weight(ref, stem)
        elif last in _CODE_NAMES:
            self._look_at_code_name(ref, stem, last)
        elif ref.name.endswith("_blocks"):
            scales = f"{ref.name[:-7]}_scales"
            if scales in self.refs:
                self._add(ref, "MXFP4 (gpt-oss)", {"scales": scales})
            elif ref.dtype == "U8" and len(ref.shape) >= 3:
                self._add(ref, "MXFP4 (gpt-oss)", {}, (scales,))
        elif last in ("_data", "_packed") and f"{stem}_scale" in self.refs:
            self._add(ref, "quanto", {part: f"{stem}{part}" for part in ("_scale", "_shift")})
        elif not decodable(ref.dtype):
            found = {suffix[1:]: f"{ref.name}{suffix}" for suffix in ("_scale_inv", "_scale")}
            if any(name in self.refs for name in found.values()):
                self._add(ref, f"scaled {ref.dtype} codes", found)
        if last in _LOOSE_COMPANIONS and ref.name not in self.companions:
            self.companions[ref.name] = stem.rstrip(".")

    def look_for_orphan(self, ref: TensorRef) -> None:
        """Report a companion whose codes are not there: it is no weight, and something is lost."""
        if ref.name in self.packed or ref.name in self.companions:
            return
        stem, dot, last = ref.name.rpartition(".")
        owner = f"{stem}{dot}{_ORPHANS[last]}" if last in _ORPHANS else None
        if stem.endswith(".weight") and last in _ATTACHED_COMPANIONS:
            owner = stem
        elif ref.name.endswith("_scales") and ref.dtype == "U8":
            owner = f"{ref.name[:-7]}_blocks"
        for suffix in _STATE_SUFFIXES:
            if ref.name.endswith(f".{suffix}"):
                owner = ref.name.removesuffix(f".{suffix}")
        if owner is not None:
            self._add(ref, "companion of quantised codes", {}, (owner,))

    def _add(self, codes: TensorRef, layout: str, companions: Mapping[str, str], missing: tuple[str, ...] = ()) -> None:
        """Note codes with those of the companions that exist."""
        present = {role: self.refs[name] for role, name in companions.items() if name in self.refs}
        self.packed[codes.name] = PackedWeight(codes, layout, MappingProxyType(present), missing)
        self.companions.update({companion.name: codes.name for companion in present.values()})

    def _look_at_weight(self, ref: TensorRef, stem: str) -> None:
        name = ref.name
        layout, companions = "", {}
        for suffix, title in _WEIGHT_COMPANIONS.items():
            if f"{stem}{suffix}" in self.refs:
                layout = title
                companions[suffix] = f"{stem}{suffix}"
        if ref.dtype.startswith("F8_") and layout.startswith("scaled codes"):
            layout = layout.replace("scaled codes", "FP8")
        for suffix in _ATTACHED_COMPANIONS:
            if f"{name}.{suffix}" in self.refs:
                layout = "NF4/FP4 (bitsandbytes)" if suffix != "SCB" else "int8 (bitsandbytes)"
                companions[suffix] = f"{name}.{suffix}"
        for suffix in _STATE_SUFFIXES:
            if f"{name}.{suffix}" in self.refs:
                layout = f"{suffix[-3:].upper()} (bitsandbytes)"
                companions["quant_state"] = f"{name}.{suffix}"
        # MLX writes U32 codes under the plain name, with `scales` and `biases` beside it.
        if ref.dtype in ("U32", "U8") and f"{stem}scales" in self.refs:
            layout = "grouped codes (MLX)"
            companions = {part: f"{stem}{part}" for part in ("scales", "biases")}
        if layout:
            self._add(ref, layout, companions, self._missing_for_weight(ref, layout, companions))
        elif ref.dtype.startswith("F8_") and len(ref.shape) > 1:
            self._add(ref, "FP8", {}, (f"{stem}weight_scale_inv or {stem}weight_scale",))

    def _missing_for_weight(self, ref: TensorRef, layout: str, companions: Mapping[str, str]) -> tuple[str, ...]:
        if layout.endswith("4 (bitsandbytes)"):
            needed = ["absmax", "quant_map", "quant_state"]
            absmax = self.refs.get(companions.get("absmax", ""))
            if (absmax is not None and absmax.dtype == "U8") or {"nested_absmax", "nested_quant_map"} & set(companions):
                needed += ["nested_absmax", "nested_quant_map"]
            return tuple(
                f"{ref.name}.{role}{'.bitsandbytes__*' if role == 'quant_state' else ''}"
                for role in needed
                if role not in companions
            )
        if layout == "int8 (bitsandbytes)" and "SCB" not in companions:
            return (f"{ref.name.removesuffix('weight')}SCB",)
        if set(companions) == {"weight_zero_point"}:
            return (f"{ref.name}_scale",)
        return ()

    def _look_at_code_name(self, ref: TensorRef, stem: str, last: str) -> None:
        known, required, layout = _CODE_NAMES[last]
        if any(f"{stem}{part}" not in self.refs for part in required):
            return
        if last == "qweight":
            layout = f"{layout} ({'GPTQ' if f'{stem}g_idx' in self.refs else 'AWQ or GPTQ'})"
        missing = ()
        if last == "weight_packed":
            needed = ("weight_scale", "weight_shape") if ref.dtype == "I32" else ("weight_scale",)
            missing = tuple(f"{stem}{part}" for part in needed if f"{stem}{part}" not in self.refs)
        self._add(ref, layout, {part: f"{stem}{part}" for part in known if part != "bias"}, missing)
