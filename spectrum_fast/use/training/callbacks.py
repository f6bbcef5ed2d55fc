"""A selection in a training script of one's own, by one more line.

``trainer = SFTTrainer(..., callbacks=[sf.SpectrumCallback(selection)])`` freezes everything else before the optimizer
is made, proves on the optimizer itself that nothing else is in it, puts peak memory and the trainable share into the
log, and leaves ``run.json`` in the output folder. ``spectrum-fast train`` uses the same class.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from spectrum_fast.choose.selection.model.apply import measure_trainable
from spectrum_fast.errors import SelectionError
from spectrum_fast.use.training.precision import LEAST_SHARE, WATCHED_STEPS, ChangeMeter, describe_loss, widen_trained
from spectrum_fast.use.training.record import (
    RUN_NAME,
    describe_run,
    describe_selection,
    peak_cuda_bytes,
    peak_rss_bytes,
    write_run,
)
from spectrum_fast.use.training.trainable import (
    require_matching_optimizer,
    require_same_trainable,
    require_some_trainable,
)

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerState, TrainingArguments

    from spectrum_fast.choose.selection.model.apply import AppliedSelection
    from spectrum_fast.choose.selection.selection import Selection


class FiguresInLog(TrainerCallback):
    """A callback that adds figures to the entries of the trainer's log that hold a loss."""

    def figures(self) -> dict[str, Any]:
        """What to add to an entry."""
        raise NotImplementedError

    def on_log(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Add them."""
        logs = parts.get("logs") or {}
        if "loss" in logs:
            added = self.figures()
            logs |= added
            if state.log_history:
                state.log_history[-1] |= added


class SpectrumCallback(FiguresInLog):
    """Trains the selected modules only, and says what it does.

    Selected parameters of 16 bits become float32 under autocast (:mod:`spectrum_fast.use.training.precision`), and a
    run whose first steps change less than half of the selected values is warned.

    Args:
        selection: what to train; None trains what is trainable already (everything, or adapters).
        partial: fused experts selected in part, see :func:`spectrum_fast.choose.selection.model.apply.apply_selection`.
        all_expected: every parameter is meant to be trained.
        facts: more entries for ``run.json``.
        write: leave ``run.json`` when training ends; without it the record is only kept, as ``record``.

    Raises:
        SelectionError: (when the trainer is made) an entry matches nothing, nothing or everything would be trained, or
            processes would train different parameters; (before the first step) the optimizer holds anything else, as
            it does where the callback was added to a trainer that is made already.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        *,
        partial: str = "refuse",
        all_expected: bool = False,
        facts: dict[str, Any] | None = None,
        write: bool = True,
    ) -> None:
        self.selection = selection
        self.partial = partial
        self.all_expected = all_expected
        self.facts = facts or {}
        self.write = write
        self.record: dict[str, Any] = {}
        self.share: AppliedSelection | None = None
        self.changed_share: float | None = None
        self._changes: ChangeMeter | None = None
        self._held: dict[str, str] = {}

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Freeze everything but the selection, before there is an optimizer."""
        self._freeze(parts["model"], args)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Check the optimizer that was made, just before the first step."""
        model, optimizer = parts["model"], parts["optimizer"]
        if self.share is None:  # added with add_callback: the optimizer is made, of what was trainable then
            self._freeze(model, args)
        self.facts["optimizer_tensors"] = require_matching_optimizer(optimizer, model)
        self._held, self._changes = self._digests(model), ChangeMeter(optimizer)
        self._began = time.perf_counter(), state.global_step, state.num_input_tokens_seen
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Watch the gradients of the first steps."""
        if self._changes is not None:
            self._changes.before_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Take the share of values that the first steps have changed."""
        if self._changes is not None and self._changes.steps >= WATCHED_STEPS:
            self._take_changes(args, state)

    def figures(self) -> dict[str, Any]:
        """Memory and shares."""
        added: dict[str, Any] = {"peak_rss_gib": round(peak_rss_bytes() / 2**30, 3)}
        if (cuda := peak_cuda_bytes()) is not None:
            added["peak_cuda_gib"] = round(cuda / 2**30, 3)
        if self.share is not None:
            added["trainable_percent"] = round(100 * self.share.trainable_fraction, 4)
        if self.changed_share is not None:
            added["changed_percent"] = round(100 * self.changed_share, 2)
        return added

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Check what was held, and leave ``run.json``."""
        started, step, tokens = self._began
        seconds, new = time.perf_counter() - started, state.num_input_tokens_seen - tokens
        self._take_changes(args, state)
        now = self._digests(parts["model"])  # ZeRO-3 keeps small parameters whole from the first step on, not before
        if moved := [name for name, digest in self._held.items() if now.get(name, digest) != digest]:
            raise SelectionError(
                f"{moved[0]}: experts that were not selected have changed; the optimizer {args.optim} mixes the values "
                "of a parameter, so it cannot train a part of one: use adamw, or spectrum.partial: whole"
            )
        masked = sorted(self.share.masks) if self.share is not None else []
        self.record = {
            "selection": self.selection and {**describe_selection(self.selection), "masked": masked},
            **self.facts,
            **describe_run(state, self.share),
            "resumed_at_step": step or None,
            "seconds": round(seconds, 3),
            "tokens": state.num_input_tokens_seen or None,
            "tokens_per_second": round(new / seconds, 1) if new else None,
            "changed_share": self.changed_share,
        }
        if self.write and state.is_world_process_zero:
            write_run(self.record, Path(str(args.output_dir)) / RUN_NAME)

    def _freeze(self, model: nn.Module, args: TrainingArguments) -> None:
        masks = {} if self.selection is None else self.selection.apply(model, partial=self.partial).masks
        require_some_trainable(model, all_expected=self.all_expected)
        require_same_trainable(model)  # before DDP or DeepSpeed lay out what they exchange
        if self.selection is not None or self.all_expected:
            widen_trained(model, args)
        self.share = measure_trainable(model, masks)

    def _take_changes(self, args: TrainingArguments, state: TrainerState) -> None:
        """Once: after the first steps, or at the end of a run that has fewer."""
        if self._changes is None:
            return
        self.changed_share, self._changes = self._changes.share(), None
        if self.changed_share is not None and self.changed_share < LEAST_SHARE and state.is_world_process_zero:
            warnings.warn(describe_loss(self.changed_share, args), stacklevel=2)

    def _digests(self, model: nn.Module) -> dict[str, str]:
        """Of what must not change; under ZeRO-3 and FSDP the whole is not here to be looked at."""
        masks = {} if self.share is None else self.share.masks
        return {
            name: masks[name].digest(parameter)
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if name in masks
            and parameter.shape.numel() == masks[name].total
            and type(parameter.data).__name__ != "DTensor"
        }
