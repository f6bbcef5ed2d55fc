"""Random weights whose spectra look like those of trained ones, made without an SVD.

``W = s · D_r (G + Σ_i d_i u_i v_iᵀ) D_c``: a Gaussian bulk ``G``, a low-rank part whose strengths decay like a power
``d_i = strength · edge · i^-decay`` (``edge = √n_max + √n_min``, the top of the bulk), a few outlier directions for the
module types that have them in trained models, and log-normal row and column scales that widen the bulk. Value
projections get a tight bulk with 0, 1, 2 or 30 singular values pushed below it, so that their noise set is (nearly)
empty, as it is in published scans.

Every tensor is a function of ``(seed, name, shape)`` alone: any one can be made again without the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 24
"""Elements made at a time (64 MiB in float32); part of the definition of a tensor, so it does not vary."""

NOTCH_COUNTS = (0, 1, 2, 30)
"""Singular values below the bulk of a value projection, by layer number modulo four."""

WEIGHT_SCALE = 0.02
"""Standard deviation of the bulk before the per-layer variation, the usual initialisation of language models."""


@dataclass(frozen=True)
class Profile:
    """How the spectrum of one module type looks.

    Attributes:
        strength: largest low-rank strength, in units of the bulk edge.
        decay: exponent of the power law of the strengths.
        rank_fraction: number of low-rank directions over the short side (at most 256 directions).
        row_spread: standard deviation of the log of the row scales.
        column_spread: the same of the columns.
        outliers: strengths of the outlier directions, in units of the bulk edge.
        notches: singular values pushed below the bulk.
    """

    strength: float = 3.0
    decay: float = 0.6
    rank_fraction: float = 0.125
    row_spread: float = 0.2
    column_spread: float = 0.15
    outliers: tuple[float, ...] = ()
    notches: int = 0


_PROFILES: tuple[tuple[str, Profile], ...] = (
    (r"(q_proj|query|q_a_proj|q_b_proj)$", Profile(strength=5.0, row_spread=0.3)),
    (r"(k_proj|key|kv_a_proj_with_mqa)$", Profile(strength=7.0, decay=0.7, row_spread=0.3)),
    (r"(v_proj|value)$", Profile(strength=1.2, decay=0.4, row_spread=0.03, column_spread=0.03)),
    (r"(o_proj|attention\.output\.dense)$", Profile(strength=3.0, outliers=(12.0, 7.0))),
    (r"(gate_proj|w1)$", Profile(strength=4.0, decay=0.7)),
    (r"(up_proj|w3|intermediate\.dense)$", Profile(strength=2.0, decay=0.5)),
    (r"(down_proj|w2|output\.dense)$", Profile(strength=2.0, decay=0.5, outliers=(30.0, 12.0, 9.0))),
    (r"(embed_tokens|word_embeddings)$", Profile(strength=8.0, decay=0.8, row_spread=0.3)),
    (r"lm_head$", Profile(strength=10.0, decay=0.8, row_spread=0.2)),
)


def choose_profile(name: str) -> Profile:
    """The spectrum shape of a parameter, from its module type and layer number."""
    module = name.removesuffix(".weight")
    layer = next((int(part) for part in module.split(".") if part.isdigit()), 0)
    for pattern, profile in _PROFILES:
        if re.search(pattern, module):
            if re.search(r"(v_proj|value)$", module):
                return Profile(**{**profile.__dict__, "notches": NOTCH_COUNTS[layer % len(NOTCH_COUNTS)]})
            return profile
    return Profile()


def make_tensor(name: str, shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Make one parameter.

    Args:
        name: parameter name, which decides the profile and enters the random seed.
        shape: one or two dimensions.
        seed: seed of the whole checkpoint.
        dtype: storage type; values are made in float32 and rounded once.

    Returns:
        Tensor of ``shape`` and ``dtype`` on the CPU.
    """
    out = torch.empty(shape, dtype=dtype)
    row = 0
    for block in iter_row_blocks(name, shape, seed=seed):
        out[row : row + len(block)] = block
        row += len(block)
    return out


def iter_row_blocks(name: str, shape: tuple[int, ...], *, seed: int = 0) -> Iterator[Tensor]:
    """Yield a parameter as consecutive float32 blocks of rows, at most :data:`BLOCK_ELEMENTS` elements each.

    Args:
        name: parameter name.
        shape: one or two dimensions.
        seed: seed of the whole checkpoint.

    Yields:
        float32 tensors that stack to the parameter along dimension 0.
    """
    if len(shape) == 1:
        values = torch.randn(shape, generator=_generator(seed, name, "vector"))
        is_gain = name.endswith("weight")
        yield 1.0 + 0.1 * values if is_gain else 0.01 * values
        return
    yield from _matrix_blocks(name, shape[0], shape[1], choose_profile(name), seed)


def _matrix_blocks(name: str, rows: int, columns: int, profile: Profile, seed: int) -> Iterator[Tensor]:
    shared = _generator(seed, name, "shared")
    n_min, n_max = min(rows, columns), max(rows, columns)
    variation = torch.randn(2, generator=shared).tolist()
    scale = WEIGHT_SCALE * math.exp(0.1 * variation[0])
    strengths = _strengths(profile, n_min, n_max) * math.exp(0.15 * variation[1])
    right = torch.randn(len(strengths), columns, generator=shared) / math.sqrt(columns)
    column_scale = torch.exp(profile.column_spread * torch.randn(columns, generator=shared))
    row_scale = scale * torch.exp(profile.row_spread * torch.randn(rows, generator=shared))
    notches = min(profile.notches, n_min // 4)
    depths = torch.empty(notches).uniform_(0.1, 0.4, generator=shared)
    block_rows = max(1, BLOCK_ELEMENTS // columns)
    for index, start in enumerate(range(0, rows, block_rows)):
        count = min(block_rows, rows - start)
        local = _generator(seed, name, f"block {index}")
        left = torch.randn(count, len(strengths), generator=local) * (strengths / math.sqrt(rows))
        block = torch.randn(count, columns, generator=local).addmm_(left, right)
        block *= column_scale
        block *= row_scale[start : start + count, None]
        if notches and rows <= columns and index == 0:
            directions = _orthonormal(count, notches, local)
            block -= directions @ ((1.0 - depths)[:, None] * (directions.T @ block))
        elif notches and rows > columns:
            directions = _orthonormal(columns, notches, _generator(seed, name, "notches"))
            block -= ((block @ directions) * (1.0 - depths)) @ directions.T
        yield block


def _strengths(profile: Profile, n_min: int, n_max: int) -> Tensor:
    edge = math.sqrt(n_max) + math.sqrt(n_min)
    rank = min(256, max(1, int(profile.rank_fraction * n_min)))
    power_law = profile.strength * torch.arange(1, rank + 1, dtype=torch.float32) ** -profile.decay
    outliers = torch.tensor(profile.outliers[: max(0, n_min - rank)])
    return edge * torch.cat([outliers, power_law])


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns; float64 inside, so that the result does not hang on the BLAS of the day."""
    gaussian = torch.randn(rows, min(rows, columns), generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.float()


def _generator(seed: int, name: str, part: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}\n{name}\n{part}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
