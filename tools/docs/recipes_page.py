"""The page of training recipes: the files of ``examples/train``, as they are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "train"

TITLES = {
    "single-gpu": "One GPU",
    "zero3-8gpu": "Eight GPUs, DeepSpeed ZeRO-3",
    "qlora": "Adapters on a 4-bit base",
    "moe": "Mixture of experts",
    "cpu": "A CPU, to try it",
}
"""Title of each recipe, in order; a file that is not named comes last, under its own name."""

HEAD = """# Training recipes

The files of `examples/train`, each read by the command's own reader in a test. [Training](training.md) explains the
keys. What they take on a GPU **has not been measured yet**; `spectrum-fast plan` predicts it from the headers.
"""


def recipes_page() -> str:
    """Markdown: a section a file."""
    files = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    order = [name for name in TITLES if name in files] + [name for name in files if name not in TITLES]
    parts = [HEAD]
    for name in order:
        text = files[name].read_text(encoding="utf-8")
        parts.append(f"## {TITLES.get(name, name)}\n\n`examples/train/{name}.yaml`\n\n```yaml\n{text.rstrip()}\n```\n")
    return "\n".join(parts)
