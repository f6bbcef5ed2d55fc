"""One run: fine-tune what a condition frees, and measure what was learnt and what was forgotten."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.study.conditions import prepare
from bench.study.material import Tokens


@dataclass(frozen=True)
class Settings:
    """Of every run alike: AdamW without weight decay, float32 weights, bfloat16 autocast, norm clipped at 1."""

    steps: int = 60
    batch: int = 4
    length: int = 192
    warm_steps: int = 6
    held_blocks: int = 32
    held_length: int = 256


@dataclass(frozen=True)
class Run:
    """What to do: a condition or a matched draw of it, on a text, with a seed for the order of the data."""

    text: str
    condition: str
    seed: int
    rate: float
    modules: tuple[str, ...]
    draw: int | None = None
    chooses_rate: bool = False

    @property
    def name(self) -> str:
        """Of its result file."""
        draw = "" if self.draw is None else f"-draw{self.draw:02d}"
        return f"{self.condition}{draw}-seed{self.seed}-rate{self.rate:g}"


def loss_of(model: Any, tokens: torch.Tensor, settings: Settings) -> float:
    """Mean loss a token, in nats, of ``held_blocks`` blocks spread evenly over ``tokens``; nothing is drawn."""
    starts = torch.linspace(0, len(tokens) - settings.held_length, settings.held_blocks).long()
    blocks = torch.stack([tokens[start : start + settings.held_length] for start in starts])
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        losses = [float(model(input_ids=part, labels=part).loss) for part in blocks.split(settings.batch)]
    return sum(losses) / len(losses)


def batches(tokens: torch.Tensor, settings: Settings, seed: int) -> list[torch.Tensor]:
    """The batches of a run, (batch, length) each, from places drawn by the seed: the same for every condition."""
    generator = torch.Generator().manual_seed(seed)
    count = settings.steps * settings.batch
    starts = torch.randint(0, len(tokens) - settings.length, (count,), generator=generator)
    rows = torch.stack([tokens[start : start + settings.length] for start in starts])
    return list(rows.split(settings.batch))


def fit(model: Any, rows: Sequence[torch.Tensor], rate: float, settings: Settings) -> None:
    """Train what requires gradients: linear warm-up, then linear decay to zero."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0, fused=True)
    warm, steps = settings.warm_steps, settings.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    model.train()
    for batch in rows:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)


def measure(model: Any, new: Tokens, old: Tokens, settings: Settings, chooses_rate: bool) -> dict[str, float]:
    """Loss on the text that is learnt and on the one that may be forgotten.

    A run that chooses a learning rate sees the part of the text that is kept for that, and no other.
    """
    if chooses_rate:
        return {"loss_new": loss_of(model, new.choose, settings), "loss_old": loss_of(model, old.choose, settings)}
    return {"loss_new": loss_of(model, new.measure, settings), "loss_old": loss_of(model, old.measure, settings)}


def perform(base: Any, run: Run, new: Tokens, old: Tokens, settings: Settings) -> dict[str, Any]:
    """Fine-tune a copy of the base and measure it.

    Returns:
        what the result file holds of it: the run, the settings, losses in nats a token, the number of trained
        parameters, the share of trained values that changed, CPU seconds.
    """
    began = time.process_time()
    torch.manual_seed(run.seed)
    model = prepare(copy.deepcopy(base), run.condition, run.modules)
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters() if parameter.requires_grad]
    fit(model, batches(new.learn, settings, run.seed), run.rate, settings)
    count = sum(parameter.numel() for parameter, _ in before)
    changed = sum(int((parameter != old_values).sum()) for parameter, old_values in before)
    return {
        **asdict(run),
        "modules": list(run.modules),
        "settings": asdict(settings),
        **measure(model, new, old, settings, run.chooses_rate),
        "trained_parameters": count,
        "changed_fraction": round(changed / count, 4),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
