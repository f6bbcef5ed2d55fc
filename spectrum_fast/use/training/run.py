"""One run from its configuration to a trained checkpoint: ``spectrum-fast train``."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import UsageError
from spectrum_fast.use.training.choosing import choose_modules, selection_digest
from spectrum_fast.use.training.config import TrainConfig
from spectrum_fast.use.training.console import ConsoleCallback, say_on_stderr
from spectrum_fast.use.training.resuming import checkpoint_to_resume, lost_processes_explained, same_everywhere
from spectrum_fast.use.training.saving import tidy
from spectrum_fast.use.training.sharding import (
    frozen_checkpointing_explained,
    prepare_process_group,
    sharding_arguments,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import SFTConfig

    from spectrum_fast.choose.selection.records import Selection
    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.trainer import SelectiveTrainer

SELECTION_NAME = "selection.json"


def _silent(_: str) -> None:
    """The other processes say nothing."""


def train(config: TrainConfig, *, overwrite: bool = False, say: Callable[[str], None] = say_on_stderr) -> Path:
    """Train as configured; every process of a distributed run calls this.

    The output folder then holds the model (or adapter) as a Hugging Face checkpoint with its tokenizer, the selection,
    the scan if one was made, and ``run.json``, which is written last.

    Args:
        config: the run.
        overwrite: train into a folder that already holds a finished run.
        say: writes a line for people; called by the first process only.

    Returns:
        the path of ``run.json``.

    Raises:
        UsageError: the output folder holds another run, or an option contradicts another.
        SelectionError: nothing, everything or something else than was asked for would be trained.
        CheckpointError: the model, its tokenizer or the checkpoint to go on from cannot be loaded.
    """
    if config.method.low_rank:
        from spectrum_fast.use.training.laser import run_laser

        return run_laser(config, say)
    from spectrum_fast.use.training.record import RUN_NAME, write_run

    is_first = os.environ.get("RANK", "0") == "0"
    tell = say if is_first else _silent
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for checkpoint in tidy(config.output_folder):
            tell(f"{checkpoint} was complete when the run before was stopped, and is kept")
    resume = checkpoint_to_resume(config, tell) if is_first else None
    _require_free(config, overwrite)
    trainer, callback, selection = build_trainer(config, tell)
    resume = same_everywhere(resume)
    if selection is not None:
        _keep_selection(config, selection, resume, is_first=is_first)
    tell(_opening_line(config, trainer, selection))
    with frozen_checkpointing_explained(), lost_processes_explained(config.output_folder):
        trainer.train(resume_from_checkpoint=resume)
        target = config.output_folder / RUN_NAME
        if trainer.is_world_process_zero():
            target.unlink(missing_ok=True)  # of a run before: it would vouch for what is being replaced
        trainer.save_whole()
    if trainer.is_world_process_zero():
        trainer.save_state()
        write_run(callback.record or {}, target)
    tell(f"wrote {config.output_folder}: {'adapter' if config.method.adapters else 'model'}, tokenizer and {RUN_NAME}")
    return target


def build_trainer(
    config: TrainConfig, say: Callable[[str], None] = _silent
) -> tuple[SelectiveTrainer, SpectrumCallback, Selection | None]:
    """Everything up to the first step: group of processes, model, selection, data, trainer.

    Args:
        config: the run.
        say: writes a line for people.

    Raises:
        SpectrumFastError: as :func:`train`.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
    if not sys.stderr.isatty():
        _disable_progress_bars()
    prepare_process_group(config.spectrum.shard, deepspeed_given=bool(config.trainer.get("deepspeed")))
    arguments = make_arguments(config)
    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.data import load_data
    from spectrum_fast.use.training.loading import load_model, load_tokenizer
    from spectrum_fast.use.training.record import describe_selection
    from spectrum_fast.use.training.trainer import SelectiveTrainer

    with _first_then_others(arguments):
        train_data, eval_data = load_data(config, evaluate=arguments.eval_strategy != "no")
    tokenizer = load_tokenizer(config)
    model = load_model(config, arguments)
    selection = choose_modules(config, model, lambda: _first_then_others(arguments), say)
    facts: dict[str, Any] = {
        "method": config.method.name,
        "model": config.model_name,
        "shard": config.spectrum.shard,
        "config": dict(config.document),
    }
    if config.method.adapters:
        facts["selection"] = None if selection is None else describe_selection(selection)
    callback = SpectrumCallback(
        None if config.method.adapters else selection,
        partial="refuse" if config.spectrum.partial == "aggregate" else config.spectrum.partial,
        all_expected=config.method.order is None and not config.method.adapters,
        facts=facts,
        write=False,
    )
    trainer = SelectiveTrainer(
        model=model,
        args=arguments,
        train_dataset=train_data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=_adapters(config, model, selection),
        callbacks=[callback],
    )
    _replace_printers(trainer, say)
    return trainer, callback, selection


def make_arguments(config: TrainConfig) -> SFTConfig:
    """The configuration's fields as TRL's object, with what the hardware and ``spectrum.shard`` decide.

    Raises:
        UsageError: TRL refuses a value.
    """
    import torch
    from trl import SFTConfig

    fields = {key: value for key, value in config.trainer.items() if key != "resume_from_checkpoint"}
    on_gpu = torch.cuda.is_available() and not fields.get("use_cpu", False)
    if not torch.cuda.is_available():
        fields.setdefault("use_cpu", True)
    try:
        return SFTConfig(**fields, **sharding_arguments(config.spectrum, on_gpu=on_gpu))
    except (ValueError, TypeError) as cause:
        raise UsageError(f"{config.source}: {cause}") from cause


def _adapters(config: TrainConfig, model: PreTrainedModel, selection: Selection | None) -> Any:
    """TRL's PEFT configuration, with the selected modules as its targets."""
    if not config.method.adapters:
        return None
    from trl import get_peft_config

    chosen = config.model_config()
    if selection is not None:
        from spectrum_fast.choose.selection.adapters import lora_targets

        modules, parameters = lora_targets(selection, model)
        chosen.lora_target_modules, chosen.lora_target_parameters = modules, parameters or None
        if parameters and chosen.lora_dropout:
            raise UsageError(
                f"{config.source}: lora_dropout: expected 0 for an adapter on the fused parameter {parameters[0]}, "
                f"found {chosen.lora_dropout}: PEFT has no dropout there; set it to 0 or exclude the fused parameters"
            )
        if not modules and not parameters:
            raise UsageError(
                f"{config.source}: the selection holds no module for an adapter; raise spectrum.top_percent"
            )
    elif not chosen.lora_target_modules and not chosen.lora_target_parameters:
        chosen.lora_target_modules = "all-linear"  # pyright: ignore[reportAttributeAccessIssue] - PEFT's word
    return get_peft_config(chosen)


def _require_free(config: TrainConfig, overwrite: bool) -> None:
    from spectrum_fast.use.training.record import RUN_NAME

    resumed = config.trainer.get("resume_from_checkpoint")
    if not resumed and not overwrite and (config.output_folder / RUN_NAME).exists():
        raise UsageError(
            f"{config.source}: output_dir {config.output_folder}: expected a new folder, found a finished run; choose "
            "another, or train over it with --overwrite"
        )


def _keep_selection(config: TrainConfig, selection: Selection, resume: str | None, *, is_first: bool) -> None:
    """Write the selection beside the model; a resumed run must train what it trained before."""
    from spectrum_fast.choose.selection.formats import load_selection

    target = config.output_folder / SELECTION_NAME
    if resume is not None and target.is_file():
        before, now = load_selection(target), selection
        if selection_digest(before) != selection_digest(now):
            raise UsageError(
                f"{config.source}: resume_from_checkpoint: the run so far trained {len(before.names)} modules "
                f"({target}), the configuration now selects {len(now.names)} others; give spectrum.selection: {target}"
            )
    elif is_first:
        target.parent.mkdir(parents=True, exist_ok=True)
        selection.save(target)


def _opening_line(config: TrainConfig, trainer: SelectiveTrainer, selection: Selection | None) -> str:
    from spectrum_fast.use.training.trainable import trainable_share

    share = trainable_share(trainer.model)  # pyright: ignore[reportArgumentType]
    processes = trainer.args.world_size
    modules = "" if selection is None else f", {len(selection.names)} modules"
    return (
        f"method {config.method.name}: {share.parameters:,} of {share.total_parameters:,} parameters trainable "
        f"({100 * share.fraction:.3g} %{modules}), {processes} process{'es' if processes > 1 else ''}, "
        f"shard {config.spectrum.shard}"
    )


def _replace_printers(trainer: SelectiveTrainer, say: Callable[[str], None]) -> None:
    """Our one line a log instead of the trainer's dictionaries and bars on stdout."""
    from transformers import PrinterCallback, ProgressCallback

    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    trainer.add_callback(ConsoleCallback(say))


@contextlib.contextmanager
def _first_then_others(arguments: SFTConfig) -> Iterator[None]:
    """The first process goes through alone; the others follow when it is through, or stop if it failed."""
    with arguments.main_process_first(local=False, desc="prepared by the first process"):
        yield


def _disable_progress_bars() -> None:
    """Bars are for a terminal; in a file each would be a line a step."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
