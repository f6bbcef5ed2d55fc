"""One run from its arguments to a trained checkpoint: ``spectrum-fast train``."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.skeleton import read_skeleton
from spectrum_fast.errors import SpectrumFastError, UsageError
from spectrum_fast.scanning.ranks import from_first_process
from spectrum_fast.use.training.choosing import SCAN_NAME, decide, load_data, scan_for, select_for
from spectrum_fast.use.training.record import RUN_NAME, describe_selection, write_run
from spectrum_fast.use.training.resuming import checkpoint_to_resume, lost_processes_explained
from spectrum_fast.use.training.saving import tidy
from spectrum_fast.use.training.sharding import prepare_process_group, sharding_arguments

if TYPE_CHECKING:
    from spectrum_fast.use.training.arguments import RunArguments
    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.trainer import WholeCheckpoints


def say_on_stderr(text: str) -> None:
    """Write words for a person to stderr, at once; only the first process speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def train(run: RunArguments, *, overwrite: bool = False, say: Callable[[str], None] = say_on_stderr) -> Path:
    """Train as asked for; every process of a distributed run calls this.

    The output folder then holds the model (or adapter) as a Hugging Face checkpoint with its tokenizer, the selection,
    the scan if one was made, and ``run.json``, which is written last.

    Args:
        run: its arguments.
        overwrite: train into a folder that already holds a finished run.
        say: writes a line for people.

    Returns:
        the path of ``run.json``.

    Raises:
        UsageError: the output folder holds another run, an option contradicts another, or TRL refuses one.
        SelectionError: nothing, everything or something else than was asked for would be trained.
        CheckpointError: the model, its tokenizer or the checkpoint to go on from cannot be loaded.
    """
    home = run.output_folder
    target = home / RUN_NAME
    if not overwrite and not run.given.get("resume_from_checkpoint") and target.exists():
        raise UsageError(
            f"{run.source}: output_dir {home}: expected a new folder, found a finished run; choose another, or train "
            "over it with --overwrite"
        )
    if run.spectrum.chosen.low_rank:
        return run_laser(run, overwrite=overwrite, say=say)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for checkpoint in tidy(home):
            say(f"{checkpoint} was complete when the run before was stopped, and is kept")
    trainer, callback, resume = build_trainer(run, say)
    with lost_processes_explained(home):
        trainer.train(resume_from_checkpoint=resume)
        if trainer.is_world_process_zero():
            target.unlink(missing_ok=True)  # of a run before: it would vouch for what is being replaced
        trainer.save_whole()
    if trainer.is_world_process_zero():
        trainer.save_state()
        write_run(callback.record, target)
    say(f"wrote {home}: {'adapter' if run.spectrum.chosen.adapters else 'model'}, tokenizer and {RUN_NAME}")
    return target


def build_trainer(
    run: RunArguments, say: Callable[[str], None] = say_on_stderr
) -> tuple[WholeCheckpoints, SpectrumCallback, str | None]:
    """Everything up to the first step: group of processes, selection, data, trainer.

    Returns:
        the trainer, our callback in it, and the checkpoint that the run goes on from.

    Raises:
        SpectrumFastError: as :func:`train`.
    """
    import torch
    import trl

    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.trainer import WholeCheckpoints

    section, method, facts = run.spectrum, run.spectrum.chosen, _facts(run)
    made = {"use_cpu": not torch.cuda.is_available(), "disable_tqdm": not sys.stderr.isatty()}
    made = {key: value for key, value in made.items() if key not in run.given}
    # Before TRL's arguments are made: from then on transformers divides every model that is made, by all processes.
    skeleton = None if method.order is None else read_skeleton(run.model_name).module
    prepare_process_group(section.shard, deepspeed_given=bool(run.given.get("deepspeed")))
    on_gpu = torch.cuda.is_available() and not run.given.get("use_cpu", False)
    script, arguments, chosen, mixture = run.make(
        **made, **sharding_arguments(section.shard, section.offload, on_gpu=on_gpu)
    )

    def first_looks() -> tuple[Any, str | None]:
        resume = checkpoint_to_resume(run, say)
        return skeleton and decide(run, resume, skeleton, say), resume

    selection, resume = from_first_process(first_looks)
    if "include_num_input_tokens_seen" not in run.given:
        arguments.include_num_input_tokens_seen = "non_padding"
    arguments.model_init_kwargs = {
        "revision": chosen.model_revision,
        "attn_implementation": chosen.attn_implementation,
        "dtype": chosen.dtype,
        **(arguments.model_init_kwargs or {}),
    }
    chosen.use_peft, chosen.load_in_4bit = method.adapters, method.quantised
    if selection is None:
        if method.adapters and not chosen.lora_target_modules and not chosen.lora_target_parameters:
            chosen.lora_target_modules = "all-linear"
    elif method.adapters:
        targets = selection.lora_config(skeleton, lora_dropout=chosen.lora_dropout)
        chosen.lora_target_modules, chosen.lora_target_parameters = targets.target_modules, targets.target_parameters
        facts["selection"] = describe_selection(selection)
    callback = SpectrumCallback(
        None if method.adapters else selection,
        partial="refuse" if section.partial == "aggregate" else section.partial,
        all_expected=method.order is None and not method.adapters,
        facts=facts,
        write=False,
    )
    base = trl.DPOTrainer if section.trainer == "dpo" else trl.SFTTrainer
    kind: Any = type(f"Whole{base.__name__}", (WholeCheckpoints, base), {})
    try:
        with arguments.main_process_first(local=False):
            train_data, eval_data = load_data(script, mixture, evaluate=arguments.eval_strategy != "no")
        trainer = kind(
            model=run.model_name,
            args=arguments,
            train_dataset=train_data,
            eval_dataset=eval_data,
            quantization_config=trl.get_quantization_config(chosen),
            peft_config=trl.get_peft_config(chosen),
            callbacks=[callback],
        )
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, UsageError) as cause:
        if isinstance(cause, SpectrumFastError) and not isinstance(cause, UsageError):
            raise
        raise UsageError(f"{run.source}: {' '.join(str(cause).split())}") from cause
    assert callback.share is not None  # noqa: S101 - the trainer is made
    modules = f", {len(selection.names)} modules" if selection and method.adapters else ""
    say(
        f"method {section.method}: {callback.share.summary()}{modules}, {arguments.world_size} "
        f"process{'es' if arguments.world_size > 1 else ''}, shard {section.shard}"
    )
    return trainer, callback, resume


def run_laser(run: RunArguments, *, overwrite: bool, say: Callable[[str], None]) -> Path:
    """Write the model with the selected matrices at their Marchenko-Pastur rank; the first process does it alone.

    Raises:
        SpectrumFastError: as :func:`train`.
    """
    from spectrum_fast.read.checkpoint import open_checkpoint
    from spectrum_fast.read.checkpoint.naming import role
    from spectrum_fast.use.laser import choose_targets, write_laser

    home = run.output_folder
    if os.environ.get("RANK", "0") != "0":
        return home / RUN_NAME
    aside = home.with_name(f"{home.name}.{SCAN_NAME}")  # the folder itself is made by one rename
    scan = scan_for(run, aside, say)
    selection = select_for(run, scan, fused="parts", always="none")
    names = [module.name for module in selection.modules if role(module.name) == "other"]
    targets, whole = choose_targets(open_checkpoint(run.model_name), scan, names)
    facts = {"criterion": scan.criterion}
    records = write_laser(open_checkpoint(run.model_name), targets, home, facts=facts, overwrite=overwrite)
    scan.save(home / SCAN_NAME)
    aside.unlink(missing_ok=True)
    write_run({**_facts(run), "trainable": None, "steps": 0, "matrices": len(records)}, home / RUN_NAME)
    say(f"{len(records)} matrices at low rank, {len(whole)} chosen ones have no noise to lose; wrote {home}")
    return home / RUN_NAME


def _facts(run: RunArguments) -> dict[str, Any]:
    section = {key: value for key, value in asdict(run.spectrum).items() if value is not None}
    config = {**run.given, "spectrum": section}
    return {"method": run.spectrum.method, "model": run.model_name, "shard": run.spectrum.shard, "config": config}
