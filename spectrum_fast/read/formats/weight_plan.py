"""One matrix to score, and the stored tensors that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.codes import Codes


@dataclass(frozen=True)
class FusedPart:
    """Which rows or columns of a fused weight are one of its projections.

    The axis is ``repeats`` equal stretches; of each, the places from ``begin`` to ``end`` belong to the part.

    Attributes:
        name: ``q``, ``k``, ``v``, ``gate`` or ``up``.
        axis: 0 for rows, 1 for columns.
        repeats: stretches along the axis: 1 where the part is one run.
        begin: first place in a stretch.
        end: place after the last.
        extent: length of the axis, to be checked against the weight.
    """

    name: str
    axis: int
    repeats: int
    begin: int
    end: int
    extent: int


@dataclass(frozen=True)
class WeightPlan:
    """How to get one weight matrix: what to read, and how to turn it into numbers.

    The references are already cut to what is needed: of a tensor that fuses experts they cover the bytes of one expert,
    so memory is bounded by one expert.

    Attributes:
        name: module name, unique in a scan; for an expert of a fused parameter
            :func:`spectrum_fast.read.checkpoint.naming.expert_name`.
        parameter: name of the parameter in the unquantised model; all experts of a fused parameter share it.
        main: the weight itself, or its codes.
        companions: role -> tensor that is needed to read the codes; may lie in other files than ``main``.
        decoder: from the tensor of ``main`` and those of the companions, by role, to what the codes mean, or to the
            numbers themselves (or their two factors) where no :class:`Codes` says it; it raises
            ``UnsupportedDtypeError`` where they contradict each other. None for a plain weight.
        layout: name of the format for people; empty for a plain weight.
        shape: of the decoded matrix (of all experts, before they are told apart), where the headers say it.
        expert: index of the expert in its fused parameter, or None.
        parts: how many matrices its parameter is scored in; None where the parameter is one matrix.
        whole_shape: shape of the whole parameter, unpacked, if this is a part of it; else None.
        part: which of the decoded matrix is scored, where that is one of the projections it fuses; None for all of it.
        entrywise: ``decoder`` takes plain matrices of one shape and acts entry by entry, so that blocks of them do.
        in_factors: ``decoder`` gives two thin factors of the matrix.
    """

    name: str
    parameter: str
    main: TensorRef
    companions: Mapping[str, TensorRef] = field(default_factory=dict)
    decoder: Callable[..., Codes | Tensor | FactoredMatrix] | None = None
    layout: str = ""
    shape: tuple[int, ...] | None = None
    expert: int | None = None
    parts: int | None = None
    whole_shape: tuple[int, ...] | None = None
    part: FusedPart | None = None
    entrywise: bool = False
    in_factors: bool = False

    @cached_property
    def refs(self) -> tuple[TensorRef, ...]:
        """All that is read for it."""
        return self.main, *self.companions.values()

    @cached_property
    def comes_in_blocks(self) -> bool:
        """Whether it may be read by blocks: matrices of numbers, scored as they are stored or entry by entry."""
        plain = all(len(ref.shape) in (1, 2) and decodable(ref.dtype) for ref in self.refs)
        return (self.decoder is None or self.entrywise) and self.part is None and plain

    @property
    def matrix_shape(self) -> tuple[int, ...] | None:
        """Shape of the matrix before it is split into projections, where the headers say it."""
        return self.main.shape if self.decoder is None else self.shape

    @cached_property
    def nbytes(self) -> int:
        """Bytes to read for it, codes and companions together."""
        return sum(ref.nbytes for ref in self.refs)

    @property
    def note(self) -> str:
        """What a reader of the score should know about the way from storage to matrix; empty for a plain weight."""
        decoded = [f"decoded from {self.layout}"] if self.decoder is not None else []
        expert = [f"expert {self.expert} of {self.parameter}"] if self.expert is not None else []
        return "; ".join(decoded + expert)
