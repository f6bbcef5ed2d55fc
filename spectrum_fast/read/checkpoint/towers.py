"""Towers: the sub-models of which a model for images, sound, or sequences to sequences consists.

A module belongs to the tower that the path before its layer's number names. Which towers there are is said by the
configuration: by its sub-configurations (``vision_config``, ``audio_config``, ``talker_config``) and by
``is_encoder_decoder``; beside it, and without one, the words tell that such paths are made of. What belongs to no other
tower is the language model's: in a plain one all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spectrum_fast.read.checkpoint.naming import LANGUAGE_MODEL, path_before_layer, tower_word

_HALVES = frozenset({"encoder", "decoder"})
TEXT_TOWERS = frozenset({LANGUAGE_MODEL, *_HALVES})
"""Towers whose embeddings and heads are those of the language model."""

_DEPTH = 3
"""Levels of sub-configurations that are looked into; the deepest known has two."""


def find_towers(names: Iterable[str], config: Any = None) -> dict[str, str]:
    """The tower of each module: ``language-model``, ``vision``, ``audio``, ``projector``, ``encoder``, ``decoder``, ...

    A tower of another kind has the name of its sub-configuration. ``encoder`` and ``decoder`` are two towers where both
    have layers, unless the configuration is there and says ``is_encoder_decoder: false``.

    Args:
        names: of modules or parameters, all of the model.
        config: content of ``config.json``, if at hand.

    >>> names = ["model.layers.0.mlp.up_proj", "visual.blocks.0.mlp.up_proj", "lm_head"]
    >>> list(find_towers(names).values())
    ['language-model', 'vision', 'language-model']
    >>> list(find_towers(["encoder.block.0.q", "decoder.block.0.q", "shared"]).values())
    ['encoder', 'decoder', 'language-model']
    """
    config = config if isinstance(config, Mapping) else {}
    sub_models = dict(_sub_models(config, _DEPTH))
    paths = {name: path_before_layer(name) for name in names}
    named = {path: _tower_named_in(path, sub_models) for path in set(paths.values())}
    stacks = {part for name, path in paths.items() if not named[path] and len(path) <= name.count(".") for part in path}
    halves = _HALVES if stacks >= _HALVES and config.get("is_encoder_decoder") is not False else frozenset[str]()
    towers = {
        path: tower or next((part for part in path if part in halves), LANGUAGE_MODEL) for path, tower in named.items()
    }
    return {name: towers[path] for name, path in paths.items()}


def _sub_models(config: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    """How the path of each sub-model that the configuration describes begins, and the name of its tower."""
    for key, value in config.items():
        if depth and isinstance(value, dict) and (key.endswith("_config") or "model_type" in value):
            stem = key.removesuffix("_config")
            if stem not in _HALVES:
                yield stem, tower_word(stem) or stem.replace("_", "-")
            yield from _sub_models(value, depth - 1)


def _tower_named_in(path: tuple[str, ...], sub_models: Mapping[str, str]) -> str:
    """The tower that the innermost component names; empty if none does."""
    for part in reversed(path):
        begins = (tower for stem, tower in sub_models.items() if part.startswith(f"{stem}_"))
        tower = sub_models.get(part) or tower_word(part) or next(begins, "")
        if tower:
            return tower
    return ""
