"""Find out which weight matrices of a language model carry signal, and train only those.

>>> import torch, spectrum_fast as sf
>>> record = sf.spectrum(torch.eye(3) + 0.1)
>>> record.n_signal + record.n_noise
3

``scan`` scores a checkpoint, a live model, or what training changed (``minus=``), ``load_scan`` reads a scan; ``Scan``
selects, compares, saves and shows.
``select_within`` selects as much as a budget allows.
``Selection`` is applied to a model or written for a trainer, ``load_selection`` reads one. ``spectrum`` scores one
matrix, ``singular_values`` gives all its values, ``svd_lowrank`` its leading triplets, each with bounds;
``criterion`` registers a score of your own. ``SpectrumCallback`` and ``RescanCallback`` are for trainers; errors are
``SpectrumFastError``.

The names below are loaded when first used, so that importing the package (and ``spectrum-fast --help``) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.version import __version__

if TYPE_CHECKING:
    from spectrum_fast.choose.planner.budget import select_within
    from spectrum_fast.choose.selection.scan_result import Scan, load_scan
    from spectrum_fast.choose.selection.selection import Selection, load_selection
    from spectrum_fast.measure.scoring.criteria import criterion
    from spectrum_fast.measure.scoring.measure import singular_values, spectrum
    from spectrum_fast.measure.spectra.lowrank import svd_lowrank
    from spectrum_fast.measure.spectra.record import Spectrum
    from spectrum_fast.scanning.run import scan
    from spectrum_fast.use.training.callbacks import SpectrumCallback as SpectrumCallback
    from spectrum_fast.use.training.rescan import RescanCallback as RescanCallback

_HOMES = {
    "RescanCallback": "spectrum_fast.use.training.rescan",
    "Scan": "spectrum_fast.choose.selection.scan_result",
    "Selection": "spectrum_fast.choose.selection.selection",
    "Spectrum": "spectrum_fast.measure.spectra.record",
    "SpectrumCallback": "spectrum_fast.use.training.callbacks",
    "criterion": "spectrum_fast.measure.scoring.criteria",
    "load_scan": "spectrum_fast.choose.selection.scan_result",
    "load_selection": "spectrum_fast.choose.selection.selection",
    "scan": "spectrum_fast.scanning.run",
    "select_within": "spectrum_fast.choose.planner.budget",
    "singular_values": "spectrum_fast.measure.scoring.measure",
    "spectrum": "spectrum_fast.measure.scoring.measure",
    "svd_lowrank": "spectrum_fast.measure.spectra.lowrank",
}

# Without the callbacks, which are classes of transformers': `import *` must not load that. (lazy_loader would list
# them, since all that it attaches is public, and saves no more than the ten lines at the end.)
__all__ = [
    "Scan",
    "Selection",
    "Spectrum",
    "SpectrumFastError",
    "__version__",
    "criterion",
    "load_scan",
    "load_selection",
    "scan",
    "select_within",
    "singular_values",
    "spectrum",
    "svd_lowrank",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'spectrum_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__all__})
