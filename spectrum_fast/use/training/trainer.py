"""Any of TRL's trainers with the three things that it cannot be configured to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.masking import is_masked
from spectrum_fast.use.training.saving import STAGING_NAME, STATE_NAME, finish, move_into

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


class WholeCheckpoints(_Trainer):
    """Saves whole checkpoints, makes no step too many and does not decay what must not move.

    A mixin before a trainer of transformers or TRL: ``class MyTrainer(WholeCheckpoints, SFTTrainer)``. Parameters that
    are trained in part have no weight decay: it would move the masked values. A checkpoint is written aside by all
    processes and takes its place when it is complete (:mod:`spectrum_fast.use.training.saving`). A run that goes on
    from its last step, because it was stopped while the model was being saved, makes none. The methods with a leading
    underscore are transformers' own; pyproject.toml holds it to the versions that have them.
    """

    _aside = False

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay."""
        masked = {name for name, parameter in model.named_parameters() if is_masked(parameter)}
        return [name for name in super().get_decay_parameter_names(model) if name not in masked]

    def save_whole(self) -> None:
        """Save the model into the output folder; every process calls it.

        Raises:
            CheckpointError: the files cannot be moved there.
        """
        home = Path(str(self.args.output_dir))
        staged = home / STAGING_NAME / "model"
        self.save_model(str(staged), _internal_call=True)
        for _ in self._turns():
            if staged.is_dir():
                move_into(staged, home)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        home = Path(super()._get_output_dir(trial))
        staged = home / STAGING_NAME / f"checkpoint-{self.state.global_step}"
        self._aside = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._aside = False
        if Path(self.state.best_model_checkpoint or "") == staged:  # say where it will lie, not where it is written
            self.state.best_model_checkpoint = str(home / staged.name)
            if self.args.should_save:
                self.state.save_to_json(str(staged / STATE_NAME))
        for _ in self._turns():
            if staged.is_dir():
                finish(staged, home)
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(home / staged.name))
        if self.args.should_save:
            from transformers.trainer_utils import rotate_checkpoints

            limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
            rotate_checkpoints(str(home), limit, best, use_mtime=True)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # upstream looks only after a step
            return
        super()._run_epoch(*arguments, **options)

    def _get_output_dir(self, trial: Any) -> str:
        home = super()._get_output_dir(trial)
        return os.path.join(home, STAGING_NAME) if self._aside else home

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._aside:  # only what is in its place
            super()._push_from_checkpoint(checkpoint_folder)

    def _turns(self) -> Iterator[None]:
        """Wait for all; one step by the first process alone, then by the first of every machine; wait for all.

        A machine with a file system of its own holds files that the first process does not see.
        """
        self.accelerator.wait_for_everyone()
        for turn in (self.is_world_process_zero(), self.is_local_process_zero()):
            if turn:
                yield
            self.accelerator.wait_for_everyone()
