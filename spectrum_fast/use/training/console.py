"""The log of a run for people: one line a report, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class ConsoleCallback(TrainerCallback):
    """Writes ``step 10/60  loss 3.2140  lr 2.0e-05  ...`` for every log of the trainer.

    Args:
        say: writes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        """Write one line."""
        if state.is_world_process_zero and logs:
            line = log_line(logs, state.global_step, state.max_steps)
            if line:
                self._say(line)


def log_line(logs: dict[str, Any], step: int, steps: int) -> str:
    """The figures of a log in one line, those that are there; empty where there is no loss.

    >>> log_line({"loss": 3.25, "learning_rate": 2e-05, "tokens_per_second": 1234.5, "trainable_percent": 25.0}, 3, 10)
    'step 3/10  loss 3.2500  lr 2.0e-05  1,234 tokens/s  25 % trainable'
    """
    parts = [f"step {step}/{steps}"]
    formats: dict[str, Callable[[Any], str]] = {
        "loss": lambda value: f"loss {float(value):.4f}",
        "eval_loss": lambda value: f"eval loss {float(value):.4f}",
        "learning_rate": lambda value: f"lr {float(value):.1e}",
        "grad_norm": lambda value: f"gradient {float(value):.3g}",
        "tokens_per_second": lambda value: f"{value:,.0f} tokens/s",
        "peak_rss_gib": lambda value: f"memory {value:.2f} GiB",
        "peak_cuda_gib": lambda value: f"GPU {value:.2f} GiB",
        "trainable_percent": lambda value: f"{value:.3g} % trainable",
    }
    parts += [write(logs[key]) for key, write in formats.items() if logs.get(key) is not None]
    return "  ".join(parts) if "loss" in logs or "eval_loss" in logs else ""


def say_on_stderr(text: str) -> None:
    """Write words for a person to stderr, at once."""
    print(text, file=sys.stderr, flush=True)
