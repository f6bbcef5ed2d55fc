"""LLaMA-Factory: ``lora_target``, a comma list that it hands on to PEFT; its ``freeze`` takes whole layers only.

For models with a vision or audio tower it first looks for modules whose name *contains* an entry, outside of the towers
that it freezes; what is written turns these freezes off, so that the selection alone decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats.reference_yaml import parse_yaml, to_yaml
from spectrum_fast.choose.selection.model.adapters import lora_targets
from spectrum_fast.choose.selection.readers.peft import read_as_peft
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted, shapes_of
from spectrum_fast.errors import SelectionError

if TYPE_CHECKING:
    from torch import nn

_TOWERS = ("vision_config", "audio_config")
_FREEZES = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")


def _write(wanted: Wanted) -> str:
    modules, parameters = lora_targets(wanted.selection, wanted.model)
    if parameters:
        homes = [name.removesuffix(".weight") for name in parameters]
        patterns = dict.fromkeys("*experts*" if "experts" in home else f"*.{home.rpartition('.')[2]}" for home in homes)
        ways = " ".join(f"--exclude {pattern!r}" for pattern in patterns)
        raise SelectionError(
            f"LLaMA-Factory hangs adapters on modules only, and {parameters[0]} is a parameter that PEFT adapts by "
            f"itself; leave its like out ({ways}), or use --for peft"
        )
    options = {"finetuning_type": "lora", "lora_target": ",".join(modules)}
    freezes = dict.fromkeys(_FREEZES, False) if _has_towers(wanted.model) else {}
    return to_yaml(options | freezes)


def _read(text: str, model: nn.Module) -> Reading:
    entries = parse_yaml(text, "the file")["lora_target"].split(",")
    shapes = shapes_of(model)
    if not _has_towers(model):
        return read_as_peft(entries, shapes)
    homes = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    return read_as_peft([home for home in homes if any(entry in home for entry in entries)], shapes)


def _has_towers(model: nn.Module) -> bool:
    return any(hasattr(getattr(model, "config", None), tower) for tower in _TOWERS)


READER = Reader(
    name="llama-factory",
    rule="`lora_target`: as PEFT; with towers, first every module whose name contains an entry",
    write=_write,
    read=_read,
    usage="add the lines of {file} to your LLaMA-Factory configuration",
    adapts=True,
)
