"""How much memory a training run will take on each GPU, told from the headers of its checkpoint.

Nothing is loaded: shapes come from the safetensors headers, sizes of the architecture from ``config.json``, and the
rules of partition from DeepSpeed (:mod:`spectrum_fast.choose.planner.states`).
"""

from __future__ import annotations

from spectrum_fast.choose.planner.memory import MemoryPlan, fit_percent, plan_memory
from spectrum_fast.choose.planner.model_shape import ModelShape, read_model_shape
from spectrum_fast.choose.planner.setup import TrainingSetup

__all__ = ["MemoryPlan", "ModelShape", "TrainingSetup", "fit_percent", "plan_memory", "read_model_shape"]
