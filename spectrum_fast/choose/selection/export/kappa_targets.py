"""The targets that PEFT's ``KappaTuneSelector`` takes, from a scan: the same rule on condition numbers already known.

Source: peft 0.21.2, ``peft/helpers.py``: of the ``nn.Linear`` modules (the head is one) the ``int(n top_p)`` with the
least ``s_max / (s_min + 1e-8)``, at least one; of the experts fused in 3-D as many likewise, each by the mean of
its experts. Both best first; matrices with a side above 16,384 do not compete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.fused import parts_by_parameter
from spectrum_fast.choose.selection.model.resolve import resolve_selection
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.records import SelectedModule
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spectrum_fast.choose.selection.scan_result import Scan

LARGEST_SIDE = 16384
FUSED_SUFFIXES = (".gate_up_proj", ".down_proj", ".gate_proj", ".up_proj")


def select_by_kappa(scan: Scan, model: nn.Module, options: SelectOptions) -> tuple[Selection, str]:
    """What PEFT would take of a model, as a selection and as its JSON.

    The scan is as the model holds its modules (:func:`~spectrum_fast.choose.selection.model.scan_view.as_fused_in`).
    Grouping, rounding and what is trained always are PEFT's; the share, and what competes, those of the options.

    Raises:
        SelectionError: the scan has no score of a module that competes, or only of halves that the model joins; the
            model is not known to be made of ``nn.Linear``; or an entry does not fit it.
    """
    asked = replace(options, criterion="kappa", top_percent=100.0, grouping="global", always="none", order="top")
    everything = select_with(scan, asked)
    found = resolve_selection(everything, model)
    by_name = {module.name: module for module in everything.modules}
    scored = {id(found.parameters[name]): by_name[key] for key, names in found.matched.items() for name in names}
    linear, fused = _candidates(model)
    if not linear:
        raise SelectionError("PEFT's rule takes nn.Linear modules, and the model is known by its tensors only")
    _refuse_joined(scan, fused)
    kept: list[SelectedModule] = []
    targets: dict[str, list[str] | None] = {}
    for key, candidates in (("target_modules", linear), ("target_parameters", fused)):
        known = {name: scored[id(weight)] for name, weight in candidates.items() if id(weight) in scored}
        if len(known) < len(candidates) and not (options.include or options.exclude or options.allow_incomplete):
            missing = next(name for name in candidates if name not in known)
            raise SelectionError(f"scan of {scan.model}: expected a score of {missing}, as PEFT needs, found none")
        taken = _taken(known, options.top_percent)
        targets[key] = taken or None
        kept += [replace(known[name], name=name, group=key, group_size=len(known)) for name in taken]
    selection = replace(everything, modules=tuple(kept), groups=(), top_percent=options.top_percent)
    return selection, json.dumps(targets, indent=1) + "\n"


def _refuse_joined(scan: Scan, fused: Mapping[str, Tensor]) -> None:
    """What the model joins side by side (gate and up of each expert) has no condition number that the parts' tell."""
    for parameter, parts in parts_by_parameter(scan.modules).items():
        if parameter in fused and parts[0].parts != len(fused[parameter]):
            raise SelectionError(
                f"{parameter} joins {parts[0].parts} matrices of the checkpoint in {len(fused[parameter])}, whose "
                "condition numbers do not follow from theirs; scan the model as it runs: spectrum_fast.scan(model)"
            )


def _candidates(model: nn.Module) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Weights of the modules, and fused parameters, that compete, by PEFT's names and in its order."""
    from torch import nn

    linear = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    fused = {name: one for name, one in model.named_parameters() if name.endswith(FUSED_SUFFIXES) and one.dim() == 3}
    small = [{n: w for n, w in some.items() if max(w.shape[-2:]) <= LARGEST_SIDE} for some in (linear, fused)]
    return small[0], small[1]


def _taken(known: Mapping[str, SelectedModule], top_percent: float) -> list[str]:
    """Best first, equal ones in the model's order; a score is one over the condition number."""
    ranked = sorted(known, key=lambda name: -float("inf") if known[name].snr is None else -(known[name].snr or 0.0))
    return ranked[: max(1, int(len(ranked) * (top_percent / 100)))]
