"""The methods of training that can be compared on the same data by changing one word."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum_fast.choose.selection.patterns import near_names_text
from spectrum_fast.errors import UsageError


@dataclass(frozen=True)
class Method:
    """What a method trains.

    Attributes:
        name: the word in the configuration.
        order: which modules of a scan it takes (:data:`spectrum_fast.choose.selection.ranking.ORDERS`); None for all.
        adapters: LoRA on these modules instead of the modules themselves.
        quantised: the base model is loaded in 4 bits.
        low_rank: chosen matrices are replaced by low-rank ones, written as a new checkpoint; nothing is trained.
        summary: one line for people.
    """

    name: str
    order: str | None
    adapters: bool
    quantised: bool
    summary: str
    low_rank: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("full", None, False, False, "every parameter"),
        Method("lora", None, True, False, "LoRA on every linear layer"),
        Method("qlora", None, True, True, "LoRA on every linear layer of a 4-bit base"),
        Method("spectrum", "top", False, False, "the selected modules, in full precision"),
        Method("spectrum-lora", "top", True, False, "LoRA on the selected modules"),
        Method("spectrum-qlora", "top", True, True, "LoRA on the selected modules of a 4-bit base"),
        Method("random", "random", False, False, "as many modules of each group, drawn by chance (control)"),
        Method("bottom", "bottom", False, False, "as many modules of each group, the worst (control)"),
        Method("laser", "top", False, False, "no training: chosen matrices at their Marchenko-Pastur rank", True),
    )
}


def find_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        UsageError: there is none.

    >>> find_method("spectrum-qlora").quantised
    True
    """
    if name not in METHODS:
        raise UsageError(
            f"spectrum.method: expected one of {', '.join(METHODS)}, found {name!r}{near_names_text(name, METHODS)}"
        )
    return METHODS[name]
