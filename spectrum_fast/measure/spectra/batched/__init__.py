"""Many matrices of one shape at once, without a wait for the device between the steps of one of them.

The single-matrix engine asks the host after every round of counts where to look next. On a GPU each question costs a
round trip, and one matrix of an expert's size does not fill it. Here the same functionals are computed for a batch by
tensor operations with a fixed schedule: so many rounds, so many points a round, at most so many nodes a contour. Two
small transfers come before the reduction (which matrices are finite, which need the outlier rotation), one record a
matrix after it. What misses the tolerance on this fixed schedule goes to the single-matrix engine.

``operations`` gram, band and slices of a batch -> ``weights`` a batch as numbers or in codes -> ``rounding``, ``table``
what is known of each spectrum -> ``sums`` contour integrals -> ``functionals`` the schedule -> ``engine`` weights in,
spectra out.
"""

from __future__ import annotations

from spectrum_fast.measure.spectra.batched.engine import compute_spectra

__all__ = ["compute_spectra"]
