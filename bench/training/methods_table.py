"""Every method on the same model and data: peak memory, time a step, trained share, final loss, and what was planned.

``python -m bench.training.methods_table --size cpu --name NAME`` or, on a machine with a GPU, ``--size gpu``:
Llama-3-8B shapes with as many layers as full fine-tuning is planned to fit. Writes
``bench/results/training-NAME.json``. ``--size model --model FOLDER`` measures a checkpoint that is there, float32 under
autocast, on the docstrings of the standard library. Each method is one `spectrum-fast train` in a process of its own.
On a GPU the exit code is 1 if a plan is more than 10 % off the measured peak. On a CPU the peak is that of the process,
less what importing the same libraries takes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.machine import machine_header
from bench.make_checkpoint import write_checkpoint
from bench.results_file import write_results
from spectrum_fast.choose.planner.memory import plan_memory, read_model_shape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.scanning.run import scan as scan_checkpoint

RESULTS = Path(__file__).resolve().parents[1] / "results"
PLAN_TOLERANCE = 0.10
FAMILY = "llama-3-8b"
RUNS: tuple[tuple[str, int | None], ...] = (
    ("full", None),
    ("lora", None),
    ("qlora", None),
    ("spectrum", 50),
    ("spectrum", 25),
    ("spectrum-lora", 25),
    ("spectrum-qlora", 25),
    ("random", 25),
    ("bottom", 25),
)
SIZES: dict[str, dict[str, Any]] = {
    "gpu": {
        "scale": 1,
        "layers": None,
        "dtype": "bf16",
        "length": 4096,
        "steps": 12,
        "rank": 32,
        "checkpointing": True,
    },
    "cpu": {"scale": 8, "layers": 8, "dtype": "f32", "length": 256, "steps": 6, "rank": 32, "checkpointing": False},
    "model": {
        "scale": None,
        "layers": None,
        "dtype": "f32",
        "autocast": True,
        "length": 192,
        "batch": 4,
        "steps": 6,
        "rank": 16,
        "checkpointing": False,
    },
    "small": {"scale": 64, "layers": 4, "dtype": "f32", "length": 32, "steps": 2, "rank": 4, "checkpointing": False},
}
_WORDS = 200


def write_inputs(folder: Path, size: dict[str, Any], layers: int) -> Path:
    """Model, tokenizer and data; gives the model's folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = write_checkpoint(
        folder / "model", like=FAMILY, layers=layers, scale=size["scale"], dtype=size["dtype"]
    ).path
    words = [f"w{index}" for index in range(_WORDS)]
    vocabulary = {word: index for index, word in enumerate(("<unk>", "<eos>", "<pad>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")  # noqa: S106
    fast.save_pretrained(model)
    source = random.Random(0)  # noqa: S311 - data, no secret
    rows = [" ".join(source.choices(words, k=size["length"] + 8)) for _ in range(size["steps"] + 4)]
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return model


def write_texts(folder: Path, model: Path, size: dict[str, Any]) -> Path:
    """Data for a model that is there: rows that are longer than a sequence; gives the model's folder."""
    from bench.study.material import docstrings

    text, count = docstrings(), size.get("batch", 1) * size["steps"] + 4
    rows = [text[start : start + 8 * size["length"]] for start in range(0, len(text), 8 * size["length"])]
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows[:count]))
    return model.resolve()


def choose_layers(size: dict[str, Any], memory_bytes: int) -> int:
    """The most layers of the family with which full fine-tuning is planned to stay within 92 % of the memory."""
    for layers in range(32, 0, -1):
        with tempfile.TemporaryDirectory() as folder:
            # A checkpoint of the right shapes whose bytes are a hole in the file: a plan reads headers only.
            _write_hollow(Path(folder), layers, size["scale"])
            shape = read_model_shape(folder)
        if plan_memory(shape, _setup("full", size)).peak <= 0.92 * memory_bytes:
            return layers
    return 1


def _write_hollow(folder: Path, layers: int, scale: int) -> None:
    from bench.make_checkpoint import model_shapes

    header: dict[str, Any] = {}
    offset = 0
    for name, shape in model_shapes(FAMILY, layers, scale).items():
        end = offset + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def _setup(method: str, size: dict[str, Any]) -> TrainingSetup:
    return TrainingSetup(
        method=method,
        gpus=1,
        zero=0,
        dtype="fp32" if size["dtype"] == "f32" else "bf16",
        autocast=size.get("autocast", False),
        seq_len=size["length"],
        micro_batch=size.get("batch", 1),
        checkpointing="layer" if size["checkpointing"] else "none",
        lora_rank=size["rank"],
    )


def run_method(folder: Path, model: Path, size: dict[str, Any], method: str, percent: int | None) -> dict[str, Any]:
    """Train in a process of its own; gives its ``run.json``."""
    out = folder / f"{method}-{percent}"
    on_gpu = size["scale"] == 1
    document: dict[str, Any] = {
        "model_name_or_path": str(model),
        "dtype": "float32" if size["dtype"] == "f32" else "bfloat16",
        "output_dir": str(out),
        "dataset_name": str(folder / "data.jsonl"),
        "max_length": size["length"],
        "max_steps": size["steps"],
        "per_device_train_batch_size": size.get("batch", 1),
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": size["checkpointing"],
        "bf16": size.get("autocast", False),
        "optim": "adamw_torch",
        "learning_rate": 2e-4 if "lora" in method else 1e-5,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 0,
        "use_cpu": not on_gpu,
        "lora_r": size["rank"],
        "lora_target_modules": ["all-linear"],
        "spectrum": {"method": method},
    }
    if "lora" not in method:
        del document["lora_r"], document["lora_target_modules"]
    elif method.startswith("spectrum"):
        del document["lora_target_modules"]
    if percent is not None:
        always = "none" if "lora" in method else "default"
        document["spectrum"] |= {"scan": str(folder / "scan.json"), "top_percent": percent, "always": always}
    path = folder / f"{method}-{percent}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "spectrum_fast", "train", str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")},
    )
    if done.returncode:
        raise RuntimeError(f"{method}: {done.stderr[-2000:]}")
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def import_bytes() -> int:
    """Peak memory of a process that only imports what a run imports."""
    script = (
        "import torch, transformers, trl, peft, bitsandbytes, datasets\n"
        "from trl import SFTConfig, SFTTrainer\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def to_row(run: dict[str, Any], method: str, percent: int | None, base_bytes: int) -> dict[str, Any]:
    """What the table shows of a run."""
    cuda = run["peak_cuda_bytes"]
    peak = max(cuda) if cuda else max(run["peak_rss_bytes"]) - base_bytes
    history = [entry for entry in run["history"] if "loss" in entry]
    losses = [entry["loss"] for entry in history]
    steps = run["steps"]
    return {
        "method": method,
        "percent": percent,
        "peak_bytes": peak,
        "seconds": run["seconds"],
        "seconds_a_step": run["seconds"] / steps,
        "trained_fraction": run["trainable"]["fraction"],
        "first_loss": losses[0],
        "final_loss": statistics.fmean(losses[-2:]),
        "tokens_per_second": run["tokens_per_second"],
    }


def table(size: dict[str, Any], layers: int | None, given: Path | None = None) -> dict[str, Any]:
    """Run every method; savings against ``full`` and the planner's figure in every row."""
    on_gpu = size["scale"] == 1
    base = 0 if on_gpu else import_bytes()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given is not None:
            model = write_texts(folder, given, size)
        else:
            assert layers is not None
            model = write_inputs(folder, size, layers)
        scan: Scan = scan_checkpoint(model)
        scan.save(folder / "scan.json")
        shape = read_model_shape(model)
        parameters = sum(value.numel() for value in shape.module.parameters())
        for method, percent in RUNS:
            row = to_row(run_method(folder, model, size, method, percent), method, percent, base)
            chosen = scan if percent is not None and method.startswith("spectrum") else None
            plan = plan_memory(shape, _setup(method, size), scan=chosen, top_percent=percent or 25)
            row["planned_bytes"] = plan.peak
            rows.append(row)
            print(f"{method} {percent or ''}: {row['peak_bytes'] / 2**30:.2f} GiB", file=sys.stderr)
    full = rows[0]
    for row in rows:
        row["memory_saving"] = 1 - row["peak_bytes"] / full["peak_bytes"]
        row["time_saving"] = 1 - row["seconds_a_step"] / full["seconds_a_step"]
    named = {} if given is None else {"model": given.name}
    return named | {"layers": layers, "parameters": parameters, "import_bytes": base, "on_gpu": on_gpu, "rows": rows}


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1: on a GPU a plan is more than 10 % off."""
    parser = argparse.ArgumentParser(description="Compare the methods of training.")
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--layers", type=int, help="of the model (default: as many as full fine-tuning fits)")
    parser.add_argument("--steps", type=int, help="of each run (default: those of the size)")
    parser.add_argument("--model", type=Path, help="with --size model: the folder of a checkpoint and its tokenizer")
    parser.add_argument("--name", help="of the result file; none prints only")
    options = parser.parse_args(arguments)
    size = SIZES[options.size] | ({} if options.steps is None else {"steps": options.steps})
    if options.size == "gpu" and not torch.cuda.is_available():
        parser.error("--size gpu needs a CUDA device")
    if (options.size == "model") != (options.model is not None):
        parser.error("--size model and --model belong together")
    layers = options.layers or size["layers"]
    if layers is None and options.model is None:
        layers = choose_layers(size, torch.cuda.get_device_properties(0).total_memory)
    found = table(size, layers, options.model)
    for row in found["rows"]:
        print(
            f"{row['method']:<15} {row['percent'] or '':>3} {row['peak_bytes'] / 2**30:8.2f} GiB "
            f"(planned {row['planned_bytes'] / 2**30:.2f}) {100 * row['memory_saving']:6.1f} % saved, "
            f"{row['seconds_a_step']:.2f} s a step, {100 * row['trained_fraction']:.2f} % trained"
        )
    if options.name:
        document = {"schema": 1, "kind": "training-methods", "size": options.size, "settings": size}
        write_results(RESULTS / f"training-{options.name}.json", {**document, "machine": machine_header(), **found})
    off = [row for row in found["rows"] if abs(row["planned_bytes"] / row["peak_bytes"] - 1) > PLAN_TOLERANCE]
    if found["on_gpu"] and off:
        print(f"plan: {len(off)} of {len(found['rows'])} methods are more than 10 % off", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
