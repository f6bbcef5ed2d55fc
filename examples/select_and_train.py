"""Scan a causal language model, train its best quarter for a few steps, and show that nothing else moved.

    python examples/select_and_train.py MODEL [STEPS]

MODEL is a folder with config.json that transformers knows. The tokens are random: what is shown is the mechanics.
Plain torch, so that every step is in sight; for real training see the training recipes in the documentation.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM

import spectrum_fast as sf


def main(path: str, steps: int = 3) -> None:
    """Scan, freeze, train, compare."""
    torch.manual_seed(0)
    selection = sf.scan(path).select(top_percent=25)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    applied = selection.apply(model)
    print(applied.summary())

    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)  # moments exist for what is trained, and for nothing else
    tokens = torch.randint(0, model.config.vocab_size, (2, 32))
    for step in range(steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.4f}")

    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    named = {name for names in applied.matched.values() for name in names}
    print(f"{len(moved)} parameters moved, all of them selected: {moved <= named}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
