"""Find out which weight matrices of a language model carry signal, and train only those.

>>> import torch, spectrum_fast as sf
>>> record = sf.spectrum(torch.eye(3) + 0.1)
>>> record.n_signal + record.n_noise
3

What there is, each with its own ``help``; nothing is loaded before it is used, so that ``import`` costs nothing.

Scan
    scan               score a checkpoint, a live model, or what training changed (``minus=``): a Scan
    load_scan          read a scan, a published result of the reference implementation too
    Scan               ``scan["NAME"]``, ``len``, iteration; ``select``, ``compare``, ``plot``, ``to_frame``, ``save``
    criterion          register a score of your own; those known: docs/criteria.md
Select and train
    select_within      of a scan, as much as a budget of memory or parameters allows: a Selection
    load_selection     read one
    Selection          ``apply`` to a model, ``save`` for a trainer
    SpectrumCallback   for transformers' trainers: trains what is selected, and nothing else
    RescanCallback     scan the live weights between steps, and select anew between phases
One matrix
    spectrum           its score and the numbers behind it: a Spectrum
    Spectrum           what one matrix scores, each number with a bound on its error
    singular_values    all of them, of a matrix, a batch or a list, each with its bound
    svd_lowrank        the leading triplets, with measured errors
Errors
    SpectrumFastError  all that are raised on purpose
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from spectrum_fast.version import __version__

if TYPE_CHECKING:
    from spectrum_fast.choose.planner.budget import select_within as select_within
    from spectrum_fast.choose.selection.scan_result import Scan as Scan
    from spectrum_fast.choose.selection.scan_result import load_scan as load_scan
    from spectrum_fast.choose.selection.selection import Selection as Selection
    from spectrum_fast.choose.selection.selection import load_selection as load_selection
    from spectrum_fast.errors import SpectrumFastError as SpectrumFastError
    from spectrum_fast.measure.scoring.criteria import criterion as criterion
    from spectrum_fast.measure.scoring.measure import singular_values as singular_values
    from spectrum_fast.measure.scoring.measure import spectrum as spectrum
    from spectrum_fast.measure.spectra.lowrank import svd_lowrank as svd_lowrank
    from spectrum_fast.measure.spectra.record import Spectrum as Spectrum
    from spectrum_fast.scanning.run import scan as scan
    from spectrum_fast.use.training.callbacks import SpectrumCallback as SpectrumCallback
    from spectrum_fast.use.training.rescan import RescanCallback as RescanCallback

_HOMES = {
    "RescanCallback": "use.training.rescan",
    "Scan": "choose.selection.scan_result",
    "Selection": "choose.selection.selection",
    "Spectrum": "measure.spectra.record",
    "SpectrumCallback": "use.training.callbacks",
    "SpectrumFastError": "errors",
    "criterion": "measure.scoring.criteria",
    "load_scan": "choose.selection.scan_result",
    "load_selection": "choose.selection.selection",
    "scan": "scanning.run",
    "select_within": "choose.planner.budget",
    "singular_values": "measure.scoring.measure",
    "spectrum": "measure.scoring.measure",
    "svd_lowrank": "measure.spectra.lowrank",
}

# What is listed here `import *` would load (transformers, for the callbacks) and `help` print in full, 750 lines.
__all__ = ["__version__"]


if not TYPE_CHECKING:  # a type checker would take any name for one that this knows

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'spectrum_fast' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"spectrum_fast.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    trains = importlib.util.find_spec("transformers") is not None  # the callbacks are classes of its own
    return [name for name, home in _HOMES.items() if trains or ".training." not in home] + __all__
