"""Packed and quantised layouts, recognised by the names that their writers give, so that raw codes are never scored.

A quantised weight is stored as codes and companions: scales, zero points, code books. The codes are not the weight, and
the companions, although often stored as floats, are no weight at all. Here they are found by their names, across all
files; the formats themselves say what is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.format import PackedWeight
from spectrum_fast.read.formats.registry import FORMATS

# An activation's scale may stand beside a plain weight: it marks nothing, and is no weight.
_LOOSE = frozenset(
    {
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
    }
)
_TELLING = tuple(ending for form in FORMATS for ending in form.telling)
"""Endings that nothing but a companion carries."""
_BESIDE = tuple(ending for form in FORMATS for ending in form.companions)
"""Endings that a companion carries."""


@dataclass(frozen=True)
class QuantisedTensors:
    """Which tensors of a checkpoint are codes, and which only belong to codes.

    Attributes:
        packed: tensor name -> what it is; these must be decoded before they mean anything. A companion whose codes are
            missing stands here too, with their name in ``owner``, so that it is reported and not scored.
        companions: tensor name -> name of the packed tensor or module that it belongs to; never scored.
    """

    packed: Mapping[str, PackedWeight]
    companions: Mapping[str, str]


def find_packed(tensors: Iterable[TensorRef]) -> QuantisedTensors:
    """Find packed weights and their companions by name, across all files of a checkpoint.

    A plain float weight with a scale beside it (``X.weight`` in BF16 and ``X.weight_scale``) counts as packed: either
    the scale has to be applied first or the checkpoint is inconsistent, and a guess would give a wrong score.

    Args:
        tensors: all tensors of the checkpoint; scales may lie in another shard than their codes.

    Returns:
        The packed tensors with their formats and companions, and the companions with their owners.
    """
    refs = {f".{ref.name}": ref for ref in tensors}
    beside = {key: ref for key, ref in refs.items() if key.endswith(_BESIDE)}
    packed: dict[str, PackedWeight] = {}
    companions: dict[str, str] = {}
    for key, ref in refs.items():
        found = _recognise(key, ref, beside)
        if found is not None:
            packed[ref.name] = found
            companions.update({companion.name: ref.name for companion in found.companions.values()})
    for key, ref in refs.items():
        if ref.name in companions or ref.name in packed:
            continue
        module, _, last = ref.name.rpartition(".")
        if last in _LOOSE:
            companions[ref.name] = module
        elif (owner := _lost_owner(key, ref)) is not None:
            packed[ref.name] = PackedWeight(ref, (), {}, owner)
    return QuantisedTensors(packed, companions)


def _recognise(key: str, ref: TensorRef, beside: Mapping[str, TensorRef]) -> PackedWeight | None:
    """What codes a tensor is, by its own name and the names beside it; None for a plain one.

    Args:
        key: its name after a point.
        ref: itself.
        beside: by such names, whatever may be a companion.
    """
    named = [form for form in FORMATS if key.endswith(form.codes) and form.accepts(ref)]
    present: dict[str, TensorRef] = {}
    for form in named if beside else ():
        stem = key.removesuffix(form.codes)
        for ending, role in form.companions.items():
            companion = beside.get(stem + ending)
            if companion is not None and companion not in present.values():
                present[f"a second {role}" if role in present else role] = companion
    forms = [form for form in named if form.alone(ref) or not present.keys().isdisjoint(form.marks)]
    if not forms:
        return None
    # Names that several formats share are told apart by the configuration, others by the order of the formats.
    taken = forms if forms[0].methods else forms[:1]
    return PackedWeight(ref, tuple(taken), present)


def _lost_owner(key: str, ref: TensorRef) -> str | None:
    """Name of the codes that a tensor belongs to, if its name says that it is nothing but a companion."""
    if not key.endswith(_TELLING):  # as of nearly all
        return None
    for form in FORMATS:
        for ending, codes in form.telling.items():
            if key.endswith(ending) and (not form.telling_types or ref.dtype in form.telling_types):
                return (key.removesuffix(ending) + codes).removeprefix(".")
    return None
