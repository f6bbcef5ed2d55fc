"""How a matrix is scored: the options that :func:`spectrum_fast.spectrum` and :func:`spectrum_fast.scan` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from spectrum_fast.checks import Check, is_number
from spectrum_fast.measure.scoring.criteria import ScanCriterion
from spectrum_fast.measure.spectra.options import DEFAULT_TOLERANCE, Method, Precision
from spectrum_fast.options import Option, Options

_SHARE = Check(lambda value: is_number(value) and 0 < value < 1, "a number in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions(Options):
    """How a matrix is scored."""

    method: Annotated[
        Method,
        Option(
            "auto, band or svd.",
            "``band`` is Gram, band reduction and slicing, ``svd`` every singular value by LAPACK; ``auto`` takes the "
            "fastest whose error bound meets the tolerance.",
        ),
    ] = "auto"
    precision: Annotated[Precision, Option("auto, float32 or float64.", "``auto`` begins with float32.")] = "auto"
    criterion: Annotated[
        Literal["auto", ScanCriterion],
        Option(
            "spectrum (published rule), mp (true noise edge) or kappa (condition).",
            "It sets what the tolerance is of; ``auto`` is ``spectrum``, and ``mp`` for a difference. Others follow "
            "from a finished scan: :meth:`Scan.select`.",
        ),
    ] = "auto"
    tolerance: Annotated[
        float,
        Option(
            "Relative accuracy of the scores.",
            "``auto`` escalates until the error bound meets it.",
            metavar="X",
            check=_SHARE,
        ),
    ] = DEFAULT_TOLERANCE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.criterion == "auto":
            object.__setattr__(self, "criterion", "spectrum")
