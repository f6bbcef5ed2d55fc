"""Find out which weight matrices of a language model carry signal, and train only those.

>>> import torch, spectrum_fast as sf
>>> record = sf.spectrum(torch.eye(3) + 0.1)
>>> record.n_signal + record.n_noise
3
"""

from __future__ import annotations

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.scanning import scan
from spectrum_fast.scoring.measure import spectrum
from spectrum_fast.selection.formats import load_selection
from spectrum_fast.selection.records import Selection
from spectrum_fast.selection.scan_result import Scan, load_scan
from spectrum_fast.spectra.record import Spectrum
from spectrum_fast.version import __version__

__all__ = [
    "Scan",
    "Selection",
    "Spectrum",
    "SpectrumFastError",
    "__version__",
    "load_scan",
    "load_selection",
    "scan",
    "spectrum",
]
