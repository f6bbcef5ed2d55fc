"""What a run is worth: benchmarks by lm-evaluation-harness, kept beside the run."""

from __future__ import annotations

from spectrum_fast.use.evaluation.evaluate import EvaluationOptions, evaluate

__all__ = ["EvaluationOptions", "evaluate"]
