"""The plugin of axolotl: its hooks in axolotl's order around a trainer, and axolotl itself where it can train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import spectrum_fast as sf
from spectrum_fast.errors import SelectionError, UsageError

from support.launching import environment
from support.tiny_models import write_data, write_model

ROOT = Path(__file__).resolve().parents[3]
SITE = Path(os.environ.get("AXOLOTL_SITE", ROOT / "out" / "axolotl-site"))
"""Where ``make axolotl-site`` puts what axolotl needs to train."""
PLUGIN = "spectrum_fast.use.integrations.axolotl.SpectrumPlugin"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("axolotl.integrations.base")
    return write_model(tmp_path_factory.mktemp("axolotl") / "model", "llama", layers=4)


def configure(model: Path, folder: Path, **given: Any) -> Any:
    """The configuration as axolotl hands it to hooks, through our schema."""
    from axolotl.utils.dict import DictDefault

    from spectrum_fast.use.integrations.axolotl import SpectrumArgs

    given = {"base_model": str(model), "output_dir": str(folder), "spectrum": {"top_percent": 50}, **given}
    return DictDefault({**given, **SpectrumArgs(**given).model_dump(exclude_none=True)})


def run_hooks(cfg: Any) -> Any:
    """Load, adapt and train as axolotl does, two steps; gives the trainer."""
    import transformers
    from peft import LoraConfig, get_peft_model

    from spectrum_fast.use.integrations.axolotl import SpectrumPlugin

    plugin = SpectrumPlugin()
    plugin.pre_model_load(cfg)
    live: Any = transformers.AutoModelForCausalLM.from_pretrained(cfg.base_model, dtype=torch.float32)
    plugin.pre_lora_load(cfg, live)
    if cfg.adapter:
        live = get_peft_model(live, LoraConfig(r=2, target_modules=cfg.lora_target_modules))
    rows = [{"input_ids": torch.arange(3, 11), "labels": torch.arange(3, 11)}] * 4
    arguments = transformers.TrainingArguments(
        cfg.output_dir, max_steps=2, use_cpu=True, report_to="none", save_strategy="no", learning_rate=1e-2
    )
    trainer = transformers.Trainer(
        live, arguments, train_dataset=rows, callbacks=plugin.add_callbacks_pre_trainer(cfg, live)
    )
    plugin.post_trainer_create(cfg, trainer)
    trainer.train()
    return trainer


def changed(model: Path, after: dict[str, torch.Tensor]) -> set[str]:
    before = load_file(model / "model.safetensors")
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def selected(folder: Path, **options: Any) -> set[str]:
    selection = sf.load_scan(folder / "scan.json").select(50, **options)
    return {f"{name}.weight" for name in selection.names}


def test_exactly_the_selected_parameters_change(model: Path, tmp_path: Path) -> None:
    trainer = run_hooks(configure(model, tmp_path))
    assert changed(model, trainer.model.state_dict()) == selected(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["trainable"]["tensors"] == len(selected(tmp_path))


def test_an_adapter_hangs_on_exactly_the_selected_modules(model: Path, tmp_path: Path) -> None:
    trainer = run_hooks(configure(model, tmp_path, adapter="lora"))
    adapted = {
        name.removeprefix("base_model.model.").split(".lora_A")[0] + ".weight"
        for name, value in trainer.model.named_parameters()
        if ".lora_A" in name and value.requires_grad
    }
    assert adapted == selected(tmp_path, always="none")


def test_the_scan_is_kept_and_one_that_is_named_must_be_of_the_model(model: Path, tmp_path: Path) -> None:
    from spectrum_fast.use.integrations.axolotl import SpectrumPlugin

    plugin, cfg = SpectrumPlugin(), configure(model, tmp_path)
    plugin.pre_model_load(cfg)
    kept = (tmp_path / "scan.json").read_bytes()
    plugin.pre_model_load(cfg)
    assert (tmp_path / "scan.json").read_bytes() == kept
    other = write_model(tmp_path / "other", "llama", layers=4, seed=1)
    named = {"spectrum": {"scan": str(tmp_path / "scan.json")}}
    with pytest.raises(SelectionError, match="found one of other weights"):
        plugin.pre_model_load(configure(other, tmp_path, **named))
    named["spectrum"]["criterion"] = "mp"
    with pytest.raises(UsageError, match=r"criterion mp: the scan .* was made by spectrum"):
        plugin.pre_model_load(configure(model, tmp_path, **named))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spectrum": {"top_percnt": 50}}, r"(?s)top_percnt.*Unexpected keyword argument"),
        ({"spectrum": None}, "spectrum"),
        ({"spectrum": {"top_percent": 0}}, r"top percent: expected a number in \(0, 100\], found 0"),
        ({"unfrozen_parameters": ["model.layers.0"]}, "unfrozen_parameters: the section 'spectrum' says what is"),
        ({"adapter": "lora", "lora_target_linear": True}, "lora_target_linear: the section 'spectrum' says"),
        ({"fsdp_config": {"offload_params": False}}, "set fsdp_version: 2, or use_orig_params: true"),
    ],
)
def test_what_would_train_something_else_is_refused(model: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises((ValueError, UsageError), match=message):
        configure(model, tmp_path, **given)
    configure(model, tmp_path, fsdp_version=2, fsdp_config={"offload_params": False})


def test_a_trainer_without_the_callback_is_stopped(model: Path, tmp_path: Path) -> None:
    from spectrum_fast.use.integrations.axolotl import SpectrumPlugin

    with pytest.raises(SelectionError, match="without the callback that frees the selection"):
        SpectrumPlugin().post_trainer_create(configure(model, tmp_path), None)  # pyright: ignore[reportArgumentType]


TWO_PROCESSES = """
import json, os, sys
from axolotl.utils.dict import DictDefault
from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.scanning import run
from spectrum_fast.use.integrations.axolotl import SpectrumPlugin

rank, real, scans = os.environ["RANK"], run.scan, []
run.scan = lambda *given, **named: scans.append(given) or real(*given, **named)
for name in ("good", "bad"):
    plugin = SpectrumPlugin()
    try:
        plugin.pre_model_load(DictDefault(json.load(open(f"{name}.json"))))
        found = [[module.name, module.snr] for module in plugin.scan.modules]
    except SpectrumFastError as error:
        found = str(error)
    json.dump({"scans": len(scans), "found": found}, open(f"{name}-{rank}.json", "w"))
"""


@pytest.mark.slow
def test_the_first_of_two_processes_scans_and_both_have_its_scan_or_its_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(TWO_PROCESSES)
    for name, given in (("good", {}), ("bad", {"spectrum": {"scan": "no/such.json"}})):
        (tmp_path / f"{name}.json").write_text(json.dumps(configure(model, tmp_path / "out", **given).to_dict()))
    kept = {**environment(tmp_path / "cache"), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "both.py"]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    good, bad = (
        [json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in (0, 1)] for name in ("good", "bad")
    )
    assert [one["scans"] for one in good] == [1, 0]
    assert good[0]["found"] == good[1]["found"]
    assert good[0]["found"]
    assert bad[0]["found"] == bad[1]["found"]
    assert "no/such.json" in bad[0]["found"]


def write_case(model: Path, folder: Path, name: str, **case: Any) -> Path:
    """A configuration of axolotl for a few steps on the CPU; writes ``NAME.yaml``, gives the output folder."""
    if not SITE.is_dir():
        pytest.skip("axolotl's dependencies are not here: make axolotl-site")
    write_data(folder / "text.jsonl")
    plain = {
        "base_model": str(model),
        "plugins": [PLUGIN],
        "datasets": [{"path": str(folder / "text.jsonl"), "ds_type": "json", "type": "completion", "field": "text"}],
        "dataset_num_proc": 1,
        "dataset_prepared_path": str(folder / "prepared"),
        "special_tokens": {"pad_token": "<pad>"},
        "sequence_len": 64,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 3,
        "optimizer": "adamw_torch",
        "learning_rate": 2e-3,
        "lr_scheduler": "constant",
        "attn_implementation": "sdpa",
        "save_strategy": "no",
        **dict.fromkeys(("bf16", "fp16", "tf32"), False),
        **dict.fromkeys((f"lora_{kind}_kernel" for kind in ("mlp", "qkv", "o", "embedding")), False),
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(plain | case | {"output_dir": str(folder / name)}))
    return folder / name


def run_axolotl(folder: Path, name: str, *launcher: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Axolotl's own command."""
    paths = f"{SITE}:{ROOT}:{folder}"
    kept = {**environment(folder / "cache"), "PYTHONPATH": paths, "AXOLOTL_DO_NOT_TRACK": "1", **variables}
    command = [sys.executable, "-m", *launcher, "axolotl.cli.train", f"{name}.yaml"]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "frozen-ends", "lora", "misspelt"])
def test_axolotl_trains_exactly_what_is_selected(model: Path, tmp_path: Path, name: str) -> None:
    """Full, with checkpointing, LoRA, and a misspelt key, by axolotl's own command."""
    cases: dict[str, Any] = {
        "full": {"spectrum": {"top_percent": 50}},
        "frozen-ends": {"spectrum": {"top_percent": 50, "always": "none"}, "gradient_checkpointing": True},
        "lora": {"spectrum": {"top_percent": 50}, "adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
        "misspelt": {"spectrum": {"top_percnt": 50}},
    }
    out = write_case(model, tmp_path, name, **cases[name])
    done = run_axolotl(tmp_path, name)
    words = done.stdout + done.stderr
    assert (done.returncode == 0) == (name != "misspelt"), words[-3000:]
    if name == "misspelt":
        assert "spectrum.top_percnt" in words
        assert not list(out.glob("*.safetensors"))
    elif name == "lora":
        adapters = load_file(out / "adapter_model.safetensors")
        homes = {key.removeprefix("base_model.model.").split(".lora_")[0] + ".weight" for key in adapters}
        assert homes == selected(out, always="none")
    else:
        always = "none" if name == "frozen-ends" else "default"
        assert changed(model, load_file(out / "model.safetensors")) == selected(out, always=always)
        assert "parameters trainable" in words


ON_A_CPU = """
from axolotl.integrations.base import BasePlugin

class OnCpu(BasePlugin):
    def load_datasets(self, cfg, preprocess=False):
        cfg.device_map, cfg.local_rank = {"": "cpu"}, 0  # axolotl gives each of several processes the GPU of its number

    def get_training_args(self, cfg):
        return {"use_cpu": True}
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "zero3"])
def test_two_processes_of_axolotl_train_exactly_what_is_selected(model: Path, tmp_path: Path, way: str) -> None:
    """Over gloo. FSDP2 asks for a mesh of CUDA devices whatever there is (axolotl/utils/distributed.py)."""
    (tmp_path / "on_a_cpu.py").write_text(ON_A_CPU)
    case: dict[str, Any] = {"plugins": ["on_a_cpu.OnCpu", PLUGIN], "spectrum": {"top_percent": 50}}
    variables = {"ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu"}
    if way == "zero3":
        pytest.importorskip("deepspeed")
        del variables["ACCELERATE_USE_CPU"]  # with it accelerate leaves DeepSpeed out
        auto = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping"), "auto")
        zero = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
        text = json.dumps({"zero_optimization": zero, "zero_allow_untested_optimizer": True, **auto})
        (tmp_path / "zero3.json").write_text(text)
        case["deepspeed"] = str(tmp_path / "zero3.json")
    out = write_case(model, tmp_path, way, **case)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    done = run_axolotl(tmp_path, way, *launcher, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    assert changed(model, load_file(out / "model.safetensors")) == selected(out)
    run = json.loads((out / "run.json").read_text())
    assert (run["processes"], run["optimizer_tensors"]) == (2, len(selected(out)))
