"""A scan of unfused experts as the live model sees them: parts of the parameters that transformers fuses on load."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.model.conversion import Conversion
from spectrum_fast.measure.scoring.records import ModuleScore

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.scan_result import Scan


def as_fused_in(scan: Scan, model: nn.Module) -> Scan:
    """The scan with the modules that ``model`` holds in one parameter marked as its parts.

    A selection then lets each such parameter compete as one by its pooled score
    (:mod:`spectrum_fast.choose.selection.fused`). A model that fuses nothing gives the scan unchanged.
    """
    conversion = Conversion(model)
    homes: dict[str, str] = {}
    for entry in (*scan.modules, *scan.failures):
        if getattr(entry, "is_part", False):
            continue
        loaded = conversion.module_loaded_as(entry.name, entry.parameter)
        if loaded is not None and loaded.is_part and len(loaded.parameters) == 1:
            homes[entry.name] = loaded.parameters[0]
    if not homes:
        return scan
    counts = Counter(homes.values())
    shapes = {name: tuple(getattr(value, "ds_shape", value.shape)) for name, value in model.named_parameters()}

    def with_home(module: ModuleScore) -> ModuleScore:
        if (home := homes.get(module.name)) is None:
            return module
        return replace(module, parameter=home, parts=counts[home], parameter_shape=shapes.get(home))

    failures = tuple(replace(entry, parameter=homes.get(entry.name, entry.parameter)) for entry in scan.failures)
    return replace(scan, modules=tuple(map(with_home, scan.modules)), failures=failures)
