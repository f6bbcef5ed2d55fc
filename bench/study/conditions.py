"""What is trained: a quarter of the matrices of every type, by some rule, or everything, or adapters."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARE = 0.25
FIFTHS = 5
"""Depth is cut into so many parts of equal length; a matched draw takes as many of a type from each as its model."""

BY_SCORE = ("spectrum", "mp", "kappa", "spectral-norm", "spectrum-bottom", "mp-bottom")
BY_PLACE = ("first", "last", "random")
WHOLE = ("full", "lora", "spectrum-lora")
CONDITIONS = (*BY_SCORE, *BY_PLACE, *WHOLE)
"""Of the test."""

SEARCH = ("gradient", "delta", "activation")
"""Of the search for what does work, which comes after it (protocol.md)."""

MATCHED = ("spectrum", "mp")
"""Conditions of the test with draws of their own depth beside them."""

CONTROLLED = (*MATCHED, *SEARCH)
"""All that have such draws."""

RATE_SEED = 100
"""The seed apart on which learning rates are chosen; a matched group chooses on a draw apart with the same number."""

LORA_RANK = 16
RATES = {"weights": (3e-5, 1e-4, 3e-4), "adapters": (3e-4, 1e-3, 3e-3)}


@dataclass(frozen=True)
class Matrix:
    """One of the matrices that compete: ``name`` of its module, its ``type``, ``layer`` of ``layers``, its scores."""

    name: str
    type: str
    layer: int
    layers: int
    scores: Mapping[str, float]

    @property
    def fifth(self) -> int:
        """Which fifth of the depth, from 0."""
        return self.layer * FIFTHS // self.layers


def uses_adapters(condition: str) -> bool:
    """Whether the condition trains LoRA matrices in place of weights."""
    return condition.endswith("lora")


def rates_of(condition: str) -> tuple[float, ...]:
    """The three learning rates that a condition chooses from."""
    return RATES["adapters" if uses_adapters(condition) else "weights"]


def names_of(scan: Any) -> list[str]:
    """The modules that compete: the matrices inside the layers."""
    return [module.name for module in scan.modules if ".layers." in module.name]


def matrices_of(scans: Mapping[str, Any], signals: Mapping[str, Mapping[str, float]] | None = None) -> list[Matrix]:
    """What competes, with its scores.

    Args:
        scans: of one checkpoint by ``spectrum`` and ``mp``.
        signals: further scores (:mod:`bench.study.signals`).
    """
    names = set(names_of(scans["spectrum"]))
    found = [module for module in scans["spectrum"].modules if module.name in names]
    by_mp = {module.name: module.snr for module in scans["mp"].modules}
    layers = 1 + max(_layer(module.name) for module in found)
    return [
        Matrix(
            module.name,
            module.type,
            _layer(module.name),
            layers,
            {
                "spectrum": module.snr,
                "mp": by_mp[module.name],
                "spectrum-bottom": -module.snr,
                "mp-bottom": -by_mp[module.name],
                # PEFT's KappaTune trains the matrices of the lowest condition number.
                "kappa": -module.s_max / module.s_min if module.s_min > 0 else float("-inf"),
                "spectral-norm": module.s_max,
                "first": -_layer(module.name),
                "last": _layer(module.name),
                **{score: values[module.name] for score, values in (signals or {}).items()},
            },
        )
        for module in found
    ]


def _layer(name: str) -> int:
    return int(name.split(".layers.")[1].split(".")[0])


def by_type(matrices: Sequence[Matrix]) -> dict[str, list[Matrix]]:
    """The matrices of every type, in the order of the layers."""
    groups: dict[str, list[Matrix]] = defaultdict(list)
    for matrix in sorted(matrices, key=lambda matrix: (matrix.type, matrix.layer)):
        groups[matrix.type].append(matrix)
    return dict(groups)


def top(matrices: Sequence[Matrix], score: str) -> list[str]:
    """The quarter of every type with the highest score; of equal ones the lower layer."""
    chosen = []
    for group in by_type(matrices).values():
        ranked = sorted(group, key=lambda matrix: (-matrix.scores[score], matrix.layer))
        chosen += [matrix.name for matrix in ranked[: int(len(group) * SHARE)]]
    return chosen


def at_random(matrices: Sequence[Matrix], draw: int) -> list[str]:
    """A quarter of every type, drawn evenly over all layers."""
    source = random.Random(f"random {draw}")  # noqa: S311 - no secret
    return [
        matrix.name for group in by_type(matrices).values() for matrix in source.sample(group, int(len(group) * SHARE))
    ]


def matched_draw(matrices: Sequence[Matrix], model: Sequence[str], draw: int) -> list[str]:
    """As many matrices of every type from every fifth of the depth as ``model`` has, drawn evenly within it."""
    source = random.Random(f"matched {draw}")  # noqa: S311 - no secret
    names, chosen = set(model), []
    for group in by_type(matrices).values():
        for fifth in range(FIFTHS):
            here = [matrix for matrix in group if matrix.fifth == fifth]
            taken = sum(matrix.name in names for matrix in here)
            chosen += [matrix.name for matrix in source.sample(here, taken)]
    return chosen


def choose(matrices: Sequence[Matrix], condition: str, draw: int | None, seed: int) -> list[str]:
    """The modules that a run trains; of ``full`` and ``lora`` all of them.

    Args:
        matrices: what competes.
        condition: a name of :data:`CONDITIONS` or :data:`SEARCH`.
        draw: number of a matched draw in place of the condition's own choice.
        seed: draws ``random``.

    Returns:
        names of modules.
    """
    if condition in ("full", "lora"):
        return [matrix.name for matrix in matrices]
    if condition == "random":
        return at_random(matrices, seed)
    own = top(matrices, condition.removesuffix("-lora"))
    return own if draw is None else matched_draw(matrices, own, draw)


def prepare(model: Any, condition: str, modules: Sequence[str]) -> Any:
    """Free what the condition trains and nothing else; ``full`` frees embeddings and norms as well.

    Returns:
        the model to train: itself, or PEFT's around it.
    """
    if uses_adapters(condition):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=list(modules), task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    names = {f"{name}.weight" for name in modules}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(condition == "full" or name in names)
    return model
