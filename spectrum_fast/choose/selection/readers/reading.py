"""What a reader of a selection makes of it, and how a reader is described."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection

PLAIN = re.compile(r"[\w.-]+")
"""A name in which only dots mean something to a regular expression."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reader makes of the entries.

    Attributes:
        parameters: names of the parameters it frees, or of the weights it hangs adapters on.
        kept: parameter -> what of it is trained, where that is a part: boolean, broadcasts to its shape.
        entries: how many entries it sees.
        unmatched: the entries that match nothing.
        problem: why it refuses the file; empty if it does not.
    """

    parameters: frozenset[str] = frozenset()
    entries: int = 0
    unmatched: tuple[str, ...] = ()
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)
    problem: str = ""

    def values(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many numbers are trained of parameters of these shapes."""
        total = 0
        for name in self.parameters:
            kept = self.kept.get(name)
            count = math.prod(shapes[name])
            total += count if kept is None else int(kept.sum()) * (count // kept.numel())
        return total


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a selection trains on a model, for a reader's file to say.

    Attributes:
        selection: the modules, under names that resolve in ``model``.
        model: the model, without weights.
        parameters: names of the parameters to train, in the model's order.
        kept: of those that are trained in part, what of them is; only for a reader that holds the rest.
    """

    selection: Selection
    model: nn.Module
    parameters: tuple[str, ...]
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A trainer, or another tool, that trains what a file names.

    Attributes:
        name: as on the command line.
        rule: how it reads the file, in one line.
        read: what it trains, by its own rule, of a model given such a text.
        write: the text of its file; empty for one that reads the file of another.
        usage: what to tell it to use the file; ``{file}`` stands for the path.
        adapts: it hangs adapters on modules; others free parameters.
        holds: it can hold the other experts of a parameter of which some are trained.
    """

    name: str
    rule: str
    read: Callable[[str, nn.Module], Reading]
    write: Callable[[Wanted], str] = lambda _: ""
    usage: str = ""
    adapts: bool = False
    holds: bool = False


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape, tied ones once, as trainers iterate over them."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def match_entries(entries: Collection[str], match: Callable[[str], Iterable[str]]) -> Reading:
    """The reading of entries that each stand for the names that ``match`` gives for them, or refuses (ValueError)."""
    try:
        found = {entry: tuple(match(entry)) for entry in entries}
    except re.error as error:
        return Reading(entries=len(entries), problem=f"not a regular expression: {error}")
    except ValueError as error:
        return Reading(entries=len(entries), problem=str(error))
    return Reading(
        parameters=frozenset(name for matched in found.values() for name in matched),
        entries=len(entries),
        unmatched=tuple(entry for entry, matched in found.items() if not matched),
    )
