"""A plugin of axolotl: trains what a scan of its base model selects, or hangs adapters on it, and nothing else.

    plugins:
      - spectrum_fast.use.integrations.axolotl.SpectrumPlugin
    spectrum:
      top_percent: 25

Before the model is loaded the first process reads the scan, or makes one and keeps it in ``output_dir``; the others
wait, and fail with it. With an adapter the selection becomes axolotl's ``lora_target_modules``; without one
:class:`~spectrum_fast.use.training.callbacks.SpectrumCallback` frees the selected parameters in axolotl's own trainer
before there is an optimizer, and proves on the optimizer that nothing else is trained. What does not fit stops the run.
"""

# pyright: reportMissingImports=false
# axolotl is there where its plugin is used.

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axolotl.integrations.base import BasePlugin
from axolotl.utils.distributed import is_distributed
from axolotl.utils.logging import get_logger
from pydantic import BaseModel, ConfigDict, model_validator

from spectrum_fast.choose.selection.model.adapters import lora_targets
from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.errors import SelectionError
from spectrum_fast.scanning.kept import ScanChoice, find_scan
from spectrum_fast.scanning.ranks import from_first_process

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer, TrainerCallback

    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection
    from spectrum_fast.use.training.callbacks import SpectrumCallback

_LOG = get_logger("axolotl.integrations.spectrum_fast")  # axolotl shows what its own loggers say
_DECIDED = ("unfrozen_parameters", "freeze_mm_modules", "lora_target_modules", "lora_target_parameters",
            "lora_target_linear", "peft_layers_to_transform", "relora", "lora_model_dir")  # fmt: skip
"""Keys of axolotl that say what is trained, as the selection does."""


@dataclass(frozen=True, kw_only=True)
class SpectrumSection(ScanChoice):
    """The section ``spectrum:``.

    Raises:
        UsageError: a value is not what it should be.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")


class SpectrumArgs(BaseModel):
    """What axolotl adds to its configuration for this plugin."""

    spectrum: SpectrumSection

    @model_validator(mode="before")
    @classmethod
    def _refuse_contradictions(cls, data: dict[str, Any]) -> dict[str, Any]:
        for key in _DECIDED:
            if data.get(key):
                raise ValueError(f"{key}: the section 'spectrum' says what is trained; drop one of the two")
        fsdp = data.get("fsdp_config") or {}
        flat = (data.get("fsdp") or fsdp) and str(data.get("fsdp_version") or fsdp.get("fsdp_version") or 1) == "1"
        if flat and not data.get("adapter") and not fsdp.get("use_orig_params"):
            raise ValueError(
                "FSDP 1 puts trained and frozen parameters into one: set fsdp_version: 2, or use_orig_params: true in "
                "fsdp_config"
            )
        return data


class SpectrumPlugin(BasePlugin):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.scan: Scan | None = None
        self.selection: Selection | None = None
        self.targets: tuple[list[str], list[str]] | None = None
        self.callback: SpectrumCallback | None = None

    def get_input_args(self) -> str:
        """Where the schema is."""
        return f"{__name__}.{SpectrumArgs.__name__}"

    def pre_model_load(self, cfg: Any) -> None:
        """Read the scan, or make it, in the first process.

        Raises:
            SpectrumFastError: it cannot be read or made, in every process.
        """
        is_distributed()  # makes the group of processes
        kept, section = Path(cfg.output_dir) / "scan.json", SpectrumSection(**cfg.spectrum)
        revision = cfg.revision_of_model or "main"
        self.scan = from_first_process(
            lambda: find_scan(cfg.base_model, kept, section, revision=revision, say=_LOG.info)
        )

    def pre_lora_load(self, cfg: Any, model: nn.Module) -> None:
        """Select, in the names of the model as it was loaded, and tell axolotl where adapters go.

        Raises:
            SelectionError: nothing can be selected, or the model has no parameter for a module.
        """
        assert self.scan is not None  # noqa: S101 - axolotl calls the hooks in this order
        section = SpectrumSection(**cfg.spectrum)
        self.selection = select_with(as_fused_in(self.scan, model), section)
        if cfg.adapter:
            self.targets = lora_targets(self.selection, model)
            cfg.lora_target_modules, cfg.lora_target_parameters = self.targets
        elif cfg.gradient_checkpointing and (cfg.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            # Its inputs must ask for a gradient, or layers above frozen embeddings get none.
            model.enable_input_require_grads()  # pyright: ignore[reportCallIssue]

    def add_callbacks_pre_trainer(self, cfg: Any, model: nn.Module) -> list[TrainerCallback]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The callback that frees the selection when the trainer is made."""
        from spectrum_fast.use.training.callbacks import SpectrumCallback

        assert self.selection is not None  # noqa: S101
        self.callback = SpectrumCallback(None if cfg.adapter else self.selection)
        return [self.callback]

    def post_trainer_create(self, cfg: Any, trainer: Trainer) -> None:
        """Say what is trained; the callback has freed it, or axolotl has hung its adapters.

        Raises:
            SelectionError: the callback was not asked, or adapters are on anything else than the selected modules.
        """
        if self.callback is None or self.callback.share is None:
            raise SelectionError("axolotl has made a trainer without the callback that frees the selection")
        if cfg.adapter:
            tuner: Any = trainer.model.base_model  # pyright: ignore[reportOptionalMemberAccess]
            found = tuple(sorted(getattr(tuner, f"targeted_{kind}_names")) for kind in ("module", "parameter"))
            if found != tuple(map(sorted, self.targets or ())):
                raise SelectionError(f"adapters: expected them on {self.targets}, found them on {found}")
        _LOG.info(self.callback.share.summary())
