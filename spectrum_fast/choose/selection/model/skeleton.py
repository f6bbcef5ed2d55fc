"""The parameters of a model by name and shape, without a byte of its weights, as a torch module on the meta device.

Readers of a selection act on the parameters of the running model, whose names transformers may change while loading
(it fuses experts, for one). So where ``config.json`` names an architecture that the installed transformers knows, the
skeleton is that model; else its parameters are the tensors of the checkpoint. Never is code of a checkpoint run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import CheckpointError, SelectionError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.scan_result import Scan

ORIGINS = ("auto", "runtime", "checkpoint")
"""Where names come from: the running model where it can be built, the running model or an error, the files."""


@dataclass(frozen=True)
class ModelSkeleton:
    """A model without weights.

    Attributes:
        name: the checkpoint's display name.
        module: parameters on the meta device, tied ones shared.
        note: why the names are those of the checkpoint; empty if they are those of the running model.
    """

    name: str
    module: nn.Module
    note: str = ""


def read_skeleton(source: str, names: str = "auto") -> ModelSkeleton:
    """Build the skeleton of a checkpoint.

    Args:
        source: folder, ``.safetensors`` file or hub id, as for a scan.
        names: one of :data:`ORIGINS`.

    Raises:
        CheckpointError: the checkpoint cannot be opened, or ``runtime`` was asked for and the model cannot be built.
        UsageError: ``names`` is none of them.
    """
    if names not in ORIGINS:
        raise UsageError(f"unknown names {names!r}: expected one of {', '.join(ORIGINS)}")
    checkpoint = open_checkpoint(source)
    note = "names are those of the checkpoint's files, as was asked"
    if names != "checkpoint":
        module, note = _build_runtime(checkpoint.config)
        if module is not None:
            return ModelSkeleton(checkpoint.name, module)
        if names == "runtime":
            raise CheckpointError(f"{source}: the running model cannot be built: {note}; use the names of the files")
        note = f"names are those of the checkpoint's files: {note}"
    tensors = [(ref.name, ref.shape, ref.dtype) for ref in checkpoint.tensors]
    return ModelSkeleton(checkpoint.name, module_of_tensors(tensors), note)


def skeleton_of_scan(scan: Scan) -> ModelSkeleton:
    """The skeleton of what was scanned, from the scan alone: it holds the model's configuration.

    Raises:
        SelectionError: it holds neither that nor shapes, as a published file.
    """
    module, note = _build_runtime(scan.provenance.get("config"))
    if module is not None:
        return ModelSkeleton(scan.model, module)
    tensors = {entry.parameter: entry.parameter_shape or entry.shape for entry in scan.modules}
    if None in tensors or None in tensors.values():
        raise SelectionError(
            f"scan of {scan.model}: it holds scores and no shapes, so what a trainer would train cannot be proved; "
            "name the checkpoint with --model"
        )
    known = [(name, shape, "F32") for name, shape in tensors.items() if name is not None and shape is not None]
    return ModelSkeleton(scan.model, module_of_tensors(known), f"{note}, as far as the scan says")


def module_of_tensors(tensors: Iterable[tuple[str, tuple[int, ...], str]]) -> nn.Module:
    """A module with exactly these parameters.

    Each is given as its name, shape and safetensors storage type.

    Raises:
        CheckpointError: a name is also the path of a module, so that no module can hold both.
    """
    import torch
    from torch import nn

    root = nn.Module()
    for name, shape, dtype in tensors:
        home = root
        *path, leaf = name.split(".")
        try:
            for part in path:
                if part not in home._modules:
                    home.add_module(part, nn.Module())
                home = home.get_submodule(part)
            floating = dtype.startswith(("F", "BF"))
            kind = torch.float32 if floating else torch.int8
            values = torch.empty(shape, dtype=kind, device="meta")
            home.register_parameter(leaf, nn.Parameter(values, requires_grad=floating))
        except (KeyError, AttributeError) as error:
            raise CheckpointError(f"tensor {name!r}: expected a parameter's name, found {error}") from error
    return root


def _build_runtime(config: dict[str, Any] | None) -> tuple[nn.Module | None, str]:
    """The model of the installed transformers on the meta device; or None and why not."""
    if config is None:
        return None, "there is no config.json"
    model_type = str(config.get("model_type"))
    try:
        import torch
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError:
        return None, "transformers is not installed"
    if model_type not in CONFIG_MAPPING:
        return None, f"transformers {transformers.__version__} does not know model_type {model_type!r}"
    plain = {key: value for key, value in config.items() if key not in ("auto_map", "quantization_config")}
    architecture = (config.get("architectures") or [None])[0]
    family = getattr(transformers, str(architecture), None)
    if not (isinstance(family, type) and issubclass(family, transformers.PreTrainedModel)):
        family = transformers.AutoModelForCausalLM
    try:
        with _quiet_transformers(), torch.device("meta"):
            known = CONFIG_MAPPING[model_type].from_dict(plain)
            # AutoModel.from_config and PreTrainedModel._from_config build the same thing.
            build = getattr(family, "from_config", None) or family._from_config  # pyright: ignore[reportAttributeAccessIssue]
            return build(known), ""
    # What a configuration can do wrong inside the library has no common class; the reason is passed on.
    except Exception as error:  # noqa: BLE001
        return None, f"transformers cannot build {architecture or model_type}: {type(error).__name__}: {error}"[:300]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
