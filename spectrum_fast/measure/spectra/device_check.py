"""Is a GPU's answer right? Asked once a process, of matrices whose singular values are known, before any weight.

No kernel is trusted because it compiled. A device that is asked for is given a few matrices of chosen singular values,
plain, spiky and in a batch; if a score misses its stated bound, the device is refused by name and nothing is scanned.
Launches are recorded and replayed from then on if that gives the same bits.
"""

from __future__ import annotations

import warnings
from functools import cache, partial

import numpy as np
import torch

from spectrum_fast.errors import BackendUnavailableError, SpectrumFastError
from spectrum_fast.measure.ops.band import CARRIED
from spectrum_fast.measure.ops.compile_ahead import compile_ahead
from spectrum_fast.measure.ops.device_graph import RECORDINGS, prove_graphs
from spectrum_fast.measure.ops.dispatch import triton_problem
from spectrum_fast.measure.ops.product import multiply_band
from spectrum_fast.measure.ops.triton_support import kernel_errors
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.methods.svd import svd_functionals
from spectrum_fast.measure.spectra.record import Criterion, Spectrum

_SHAPE = (264, 391)
"""Odd sizes, past every special case for small ones, and a moment's work."""
_SAME_SPECTRUM = 10.0
"""In units of ``eps ||A||_F``; a tenth of one is seen for the matrix here."""


@cache
def require_right_answers(device: str, criterion: Criterion) -> None:
    """Compute known spectra on a device and compare; its kernels are compiled first, beside each other.

    Args:
        device: a torch device, ``cuda:0``.
        criterion: the rule whose scores are compared.

    Raises:
        BackendUnavailableError: a score is outside its stated bound, or a kernel failed; the message says which.
    """
    has_kernels = torch.device(device).type == "cuda" and triton_problem() is None
    if has_kernels:
        compile_ahead(device)  # what fails there fails below, if a weight would need it
    known = _known_matrices()
    for name, weight in known.items():
        exact = svd_functionals(weight.to(torch.float64), criterion, _SHAPE)
        expected = criterion.score(exact.signal_sum, exact.noise_sum, exact.statistics.s_max, exact.threshold)
        on_device = weight.to(device)
        try:
            together = compute_spectra([on_device, on_device], criterion)
        except (*kernel_errors(), SpectrumFastError) as error:
            raise BackendUnavailableError(f"device {device!r}: a kernel failed on a {name} matrix: {error}") from error
        for found in together:
            _compare(device, name, found, expected)
    if has_kernels:
        weight = known["plain"].to(device)
        _compare_bands(device, weight)
        prove_graphs(weight.device, partial(_are_replays_right, weight, criterion))


def first_right_gpu(criterion: Criterion) -> str | None:
    """The first GPU, if there is one, Triton serves it and its answers are right; a warning says what is wrong."""
    if not torch.cuda.is_available() or triton_problem() is not None:
        return None
    try:
        require_right_answers("cuda", criterion)
    except BackendUnavailableError as error:
        warnings.warn(f"the CPU is taken: {error}", stacklevel=2)
        return None
    return "cuda"


def _compare_bands(device: str, weight: torch.Tensor) -> None:
    """Large matrices are updated once for several panels: those here are too small for that, unless it is asked for."""
    from spectrum_fast.measure.ops.band.triton import reduce_in_groups

    gram = (weight.float() @ weight.float().mT)[None]
    eye = torch.eye(len(weight), dtype=torch.float64)[None]
    vectors = eye[:, :CARRIED].to(gram.device)  # a scan has some too, and the same kernels

    def eigenvalues(group: int) -> torch.Tensor:
        bands = reduce_in_groups(gram.clone(), 32, vectors.clone(), group)
        return torch.linalg.eigvalsh(multiply_band(bands.cpu().double(), eye))

    try:
        plain, together = eigenvalues(1), eigenvalues(4)
    except kernel_errors() as error:
        raise BackendUnavailableError(f"device {device!r}: a kernel failed on a Gram matrix: {error}") from error
    off = float((plain - together).abs().max() / plain.norm()) / torch.finfo(torch.float32).eps
    if not off <= _SAME_SPECTRUM:
        raise BackendUnavailableError(
            f"device {device!r}: expected eigenvalues within {_SAME_SPECTRUM:.0f} eps of their norm whichever way a "
            f"matrix is updated, found {off:.1e}; its kernels are wrong here: use --device cpu and report this"
        )


def _are_replays_right(weight: torch.Tensor, criterion: Criterion) -> bool:
    """The third batch of a shape is replayed; a device that cannot do so, or does it wrong, goes on without."""
    problem = "replays give other numbers than launches"
    try:
        first, *again = (compute_spectra([weight, weight], criterion) for _ in range(4))
        if all(one == first for one in again):
            return True
    except (*kernel_errors(), SpectrumFastError) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        RECORDINGS.forget()
    warnings.warn(f"device {str(weight.device)!r}: CUDA graphs are not used, {problem}", stacklevel=2)
    return False


def _compare(device: str, name: str, found: Spectrum | Exception, expected: float) -> None:
    if not isinstance(found, Spectrum) or found.snr is None:
        raise BackendUnavailableError(f"device {device!r}: expected a score of a {name} matrix, found {found}")
    if not abs(found.snr - expected) <= found.error_bound * expected:
        raise BackendUnavailableError(
            f"device {device!r}: expected the score {expected:.8g} of a {name} matrix within {found.error_bound:.1e}, "
            f"found {found.snr:.8g} ({found.method}); its kernels are wrong here: use --device cpu and report this"
        )


def _known_matrices() -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(11)
    noise = generator.standard_normal(_SHAPE) * 0.02
    spikes = generator.standard_normal((_SHAPE[0], 3)) @ generator.standard_normal((3, _SHAPE[1]))
    plain = torch.from_numpy(noise + 0.004 * spikes)  # some signal by every rule, and not spiky yet
    return {
        "plain": plain.to(torch.bfloat16),
        "spiky": torch.from_numpy(noise + 0.5 * spikes).to(torch.bfloat16),
        "float32": plain.to(torch.float32),
    }
