"""From a stored tensor to the plans of the matrices in it, or a refusal that says why.

Nothing is guessed: a layout is decoded only if its types, shapes and the configuration leave one meaning.
"""

from __future__ import annotations

from dataclasses import replace

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.dtypes import require_decodable
from spectrum_fast.read.checkpoint.naming import expert_name, module_name
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.config import QuantisationConfig
from spectrum_fast.read.formats.format import Format, PackedWeight, missing, name_of, refuse
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.storage.files import shorten

MAX_EXPERTS = 1 << 13
"""Most experts in one tensor; the largest published models fuse some hundreds."""


def plan_plain(ref: TensorRef) -> tuple[WeightPlan, ...]:
    """Plan a tensor that is stored as numbers: one matrix or vector, or one matrix per expert of a 3-D tensor.

    Raises:
        UnsupportedDtypeError: its storage type holds no numbers, or it has more than three extents.
    """
    require_decodable(ref)
    if len(ref.shape) > 3:
        raise UnsupportedDtypeError(
            f"{ref}: expected at most 3 extents (experts, rows, columns), found shape {ref.shape}; exclude it"
        )
    plan = WeightPlan(module_name(ref.name), ref.name, ref)
    return _split(plan) if len(ref.shape) == 3 else (plan,)


def plan_packed(packed: PackedWeight, config: QuantisationConfig) -> tuple[WeightPlan, ...]:
    """Plan the decoding of a packed weight.

    Args:
        packed: codes and companions.
        config: what the checkpoint's configuration says.

    Returns:
        One plan, or one per expert where the codes fuse experts.

    Raises:
        UnsupportedDtypeError: a companion is missing or contradicts the codes or the configuration, or the layout is
            not decoded; the message names the tensors.
    """
    if packed.owner:
        raise missing(packed, packed.owner)
    form = _choose(packed, config)
    packed = replace(packed, formats=(form,), config=config)
    _check(packed, form)
    if form.plan is None:
        raise refuse(packed)
    plan = form.plan(packed)
    return _split(plan) if len(plan.shape or ()) == 3 else (plan,)


def _choose(packed: PackedWeight, config: QuantisationConfig) -> Format:
    """Several formats may give their tensors the same names: then only the configuration tells them apart."""
    fitting = [form for form in packed.formats if not form.methods or config.method in form.methods]
    if not fitting:
        known = " and ".join(sorted(method for form in packed.formats for method in form.methods))
        raise refuse(packed, f"config.json names {config.method or 'no method'}, only {known} are read")
    return fitting[0]


def _check(packed: PackedWeight, form: Format) -> None:
    """Types, companions and emptiness, which every format is held to alike."""
    codes, companions = packed.codes, packed.companions
    if codes.dtype not in form.types.get("codes", (codes.dtype,)):
        raise refuse(packed, f"expected {' or '.join(form.types['codes'])} codes")
    lost = [name_of(codes.name, form, role) for role in form.required if role not in companions]
    if lost:
        raise missing(packed, ", ".join(lost))
    beside = set(companions) - set(form.companions.values())
    if beside and form.plan is not None:
        raise refuse(packed, f"expected {', '.join(form.companions.values())} at most, found {', '.join(companions)}")
    for role, ref in companions.items():
        if ref.dtype not in form.types.get(role, (ref.dtype,)):
            raise refuse(packed, f"expected {' or '.join(form.types[role])} in {ref.name}, found {ref.dtype}")
    for ref in (codes, *companions.values()):
        if ref.element_count == 0:
            raise refuse(packed, f"expected values in {shorten(ref.name)}, found none, shape {ref.shape}")


def _split(plan: WeightPlan) -> tuple[WeightPlan, ...]:
    """One plan per expert; companions that have as many entries are cut alongside, others shared."""
    main = plan.main
    count = main.shape[0]
    if count > MAX_EXPERTS:  # before a record is made of any
        raise UnsupportedDtypeError(
            f"{main}: expected at most {MAX_EXPERTS} experts, found {count} in shape {main.shape}, which no published "
            "model comes near; exclude it"
        )
    whole = plan.shape or main.shape
    return tuple(
        replace(
            plan,
            name=expert_name(plan.parameter, expert),
            main=main.item(expert),
            companions={
                role: ref.item(expert) if ref.shape[:1] == (count,) else ref for role, ref in plan.companions.items()
            },
            expert=expert,
            parts=count,
            shape=whole[1:],
            whole_shape=whole,
        )
        for expert in range(count)
    )
