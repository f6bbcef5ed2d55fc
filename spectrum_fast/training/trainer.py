"""TRL's trainer with the one thing that it cannot be configured to do."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import SFTTrainer

from spectrum_fast.selection.masking import is_masked

if TYPE_CHECKING:
    from torch import nn


class SelectiveTrainer(SFTTrainer):
    """``SFTTrainer`` without weight decay on parameters that are trained in part: it would move the masked values."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay."""
        masked = {name for name, parameter in model.named_parameters() if is_masked(parameter)}
        return [name for name in super().get_decay_parameter_names(model) if name not in masked]
