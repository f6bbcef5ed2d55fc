"""One name for one parameter, whatever wraps the model at run time.

A checkpoint says ``model.layers.0.mlp.up_proj``; the same parameter may be called
``_orig_mod.model.layers.0...`` (torch.compile), ``module.model...`` (DDP, DeepSpeed), ``base_model.model.model...``
(PEFT), ``model.language_model.layers...`` or ``language_model.model.layers...`` (vision-language models). The canonical
name drops all of these.
"""

from __future__ import annotations

import re

_WRAPPER_COMPONENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Components that a wrapper inserts anywhere in a name: torch.compile, FSDP, activation checkpointing."""

_LEADING = re.compile(r"^(?:module\.|base_model\.model\.)+")
_TEXT_TOWER = re.compile(r"^(?:model\.language_model\.model\.|model\.language_model\.|language_model\.model\.)")


def unwrapped_name(name: str) -> str:
    """The name without what wraps the model, as the wrapped model's own checkpoint has it.

    >>> unwrapped_name("_orig_mod.module.model.language_model.norm.weight")
    'model.language_model.norm.weight'
    """
    parts = [part for part in name.split(".") if part not in _WRAPPER_COMPONENTS]
    return _LEADING.sub("", ".".join(parts))


def canonical_name(name: str) -> str:
    """The name without wrappers: ``_orig_mod.module.language_model.model.norm`` -> ``model.norm``."""
    stripped = unwrapped_name(name)
    head = re.sub(r"^(?:model\.)?language_model\.lm_head\b", "lm_head", stripped)
    return _TEXT_TOWER.sub("model.", head)
