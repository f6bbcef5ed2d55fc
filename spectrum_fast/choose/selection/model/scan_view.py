"""A scan of unfused experts as the live model sees them: parts of the parameters that transformers fuses on load."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from spectrum_fast.choose.selection.model.conversion import Conversion, tensor_names
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.scan_result import Scan

_Entry = TypeVar("_Entry", ModuleScore, ScanFailure)


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
        loaded = next(
            filter(None, (conversion.loaded_as(name) for name in tensor_names(entry.name, entry.parameter))), None
        )
        if loaded is not None and loaded.is_part and len(loaded.parameters) == 1:
            homes[entry.name] = loaded.parameters[0]
    if not homes:
        return scan
    counts = Counter(homes.values())
    shapes = {name: tuple(getattr(value, "ds_shape", value.shape)) for name, value in model.named_parameters()}

    def with_home(entry: _Entry) -> _Entry:
        home = homes.get(entry.name)
        if home is None:
            return entry
        if isinstance(entry, ModuleScore):
            return replace(entry, parameter=home, parts=counts[home], parameter_shape=shapes.get(home))
        return replace(entry, parameter=home)

    return replace(scan, modules=tuple(map(with_home, scan.modules)), failures=tuple(map(with_home, scan.failures)))
