"""What the search after the test chooses by: where a text pulls at the weights, which the weights alone do not say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bench.study.conditions import RATE_SEED
from bench.study.fine_tune import Settings, batches, fit
from spectrum_fast import spectrum

BATCHES = 4
"""Of the run's size, for gradients and activations."""

STEPS = 10
"""Of full training, after which it is measured what has moved."""

RATE = 3e-4
"""Of these steps: what full training chooses."""


def signals_of(
    base: Any, names: Sequence[str], tokens: torch.Tensor, settings: Settings
) -> dict[str, dict[str, float]]:
    """Scores of every matrix from the part of a text that is learnt from, drawn with the seed that chooses rates.

    - ``gradient``: ``||G||_F`` of the mean gradient of ``BATCHES`` batches;
    - ``delta``: ``||W' - W||_F / ||W||_F`` after ``STEPS`` steps of full training;
    - ``activation``: the published ratio of ``W diag(r)``, r the root mean square of every input of the matrix.

    Args:
        base: the model; it is not changed.
        names: modules that hold the matrices.
        tokens: to learn from.
        settings: of the runs.

    Returns:
        score -> module -> value.
    """
    model = copy.deepcopy(base)
    rows = batches(tokens, replace(settings, steps=max(BATCHES, STEPS)), RATE_SEED)
    modules: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    model.requires_grad_(False)
    for module in modules.values():
        module.weight.requires_grad_(True)
    with _root_mean_squares(modules) as inputs:
        for batch in rows[:BATCHES]:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=batch, labels=batch).loss
            (loss / BATCHES).backward()
    gradient = {name: float(module.weight.grad.norm()) for name, module in modules.items()}
    weights = {name: module.weight.detach().clone() for name, module in modules.items()}
    activation = {name: spectrum(weights[name] * inputs[name]).snr or 0.0 for name in names}
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    fit(model, rows[:STEPS], RATE, replace(settings, steps=STEPS))
    moved = {name: module.weight.detach() - weights[name] for name, module in modules.items()}
    delta = {name: float(moved[name].norm() / weights[name].norm()) for name in names}
    return {"gradient": gradient, "delta": delta, "activation": activation}


@contextmanager
def _root_mean_squares(modules: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """The root mean square of every input of the modules over what passes through them, there when it ends."""
    sums = {name: torch.zeros(module.weight.shape[1], dtype=torch.float64) for name, module in modules.items()}
    seen = dict.fromkeys(modules, 0)

    def add(name: str, given: torch.Tensor) -> None:
        flat = given.detach().double().flatten(0, -2)
        sums[name] += flat.square().sum(0)
        seen[name] += len(flat)

    def adder(name: str) -> Callable[[torch.nn.Module, Any], None]:
        return lambda _, given: add(name, given[0])

    hooks = [module.register_forward_pre_hook(adder(name)) for name, module in modules.items()]
    found: dict[str, torch.Tensor] = {}
    try:
        yield found
        found.update({name: (sums[name] / seen[name]).sqrt().float() for name in modules})
    finally:
        for hook in hooks:
            hook.remove()
