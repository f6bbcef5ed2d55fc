"""One run from its arguments to a trained checkpoint: ``spectrum-fast train``."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.skeleton import read_skeleton
from spectrum_fast.errors import RankError, UsageError
from spectrum_fast.scanning.ranks import from_first_process
from spectrum_fast.use.training.choosing import decide, load_data
from spectrum_fast.use.training.record import RUN_NAME, describe_selection, write_run
from spectrum_fast.use.training.saving import checkpoint_to_resume, last_whole, tidy

if TYPE_CHECKING:
    from spectrum_fast.use.training.arguments import RunArguments
    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.trainer import WholeCheckpoints


_REFUSALS = (OSError, ValueError, TypeError, RuntimeError, ImportError, StopIteration, UsageError)
"""What transformers and TRL raise on a model, data or an argument that they do not take, and our own words on it."""
_SIGNS_OF_LOSS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
    "socket timeout",
    "timed out waiting",
    "remote process exited",
    "nccl communicator was aborted",
)
"""What torch's gloo and NCCL back ends say, in lower case, when another process has ended."""


def say_on_stderr(text: str) -> None:
    """Write words for a person to stderr, at once; only the first process speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def train(run: RunArguments, *, overwrite: bool = False, say: Callable[[str], None] = say_on_stderr) -> Path:
    """Train as asked for; every process of a distributed run calls this.

    The output folder then holds the model (or adapter) as a Hugging Face checkpoint with its tokenizer, the selection,
    the scan if one was made, and ``run.json``, which is written last.

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
    import trl
    from datasets.exceptions import DatasetsError

    from spectrum_fast.use.training.callbacks import SpectrumCallback
    from spectrum_fast.use.training.trainer import WholeCheckpoints

    section, method = run.spectrum, run.spectrum.chosen
    # Before TRL's arguments are made: from then on transformers divides every model that is made, by all processes.
    skeleton = None if method.order is None else read_skeleton(run.model_name).module
    script, arguments, chosen, mixture = _with_processes(run)

    def first_looks() -> tuple[Any, str | None]:
        resume = checkpoint_to_resume(run, say)
        return skeleton and decide(run, resume, skeleton, say), resume

    selection, resume = from_first_process(first_looks)
    unless_given = {"include_num_input_tokens_seen": "non_padding", "disable_tqdm": not sys.stderr.isatty()}
    for key in unless_given.keys() - run.given.keys():
        setattr(arguments, key, unless_given[key])
    arguments.model_init_kwargs = {
        "revision": chosen.model_revision,
        "attn_implementation": chosen.attn_implementation,
        "dtype": chosen.dtype,
        **(arguments.model_init_kwargs or {}),
    }
    chosen.use_peft, chosen.load_in_4bit = method.adapters, method.quantised
    facts = _facts(run, arguments)
    if selection is not None and method.adapters:
        targets = selection.lora_config(skeleton, lora_dropout=chosen.lora_dropout)
        chosen.lora_target_modules, chosen.lora_target_parameters = targets.target_modules, targets.target_parameters
        facts["selection"] = describe_selection(selection)
    elif method.adapters and not chosen.lora_target_modules and not chosen.lora_target_parameters:
        chosen.lora_target_modules = "all-linear"
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
    except (*_REFUSALS, DatasetsError) as cause:
        raise UsageError(f"{run.source}: {' '.join(str(cause).split())}") from cause
    assert callback.share is not None  # noqa: S101 - the trainer is made
    modules = f", {len(selection.names)} modules" if selection and method.adapters else ""
    say(
        f"method {section.method}: {callback.share.summary()}{modules}, {arguments.world_size} "
        f"process{'es' if arguments.world_size > 1 else ''}, shard {facts['shard']}"
    )
    return trainer, callback, resume


def _with_processes(run: RunArguments) -> tuple[Any, Any, Any, Any]:
    """TRL's objects; the group of processes is there from then on."""
    divided = next((key for key in ("deepspeed", "fsdp") if run.given.get(key)), None)
    least, found = 2 if divided == "fsdp" else 1, int(os.environ.get("WORLD_SIZE", "0"))
    if divided and found < least:
        raise UsageError(
            f"{run.source}: {divided}: expected {least} or more processes of a launcher, found {found or 'none'}; "
            "start them with torchrun --nproc_per_node N -m spectrum_fast train"
        )
    made = run.make()
    if made[1].deepspeed_plugin is not None:
        import deepspeed

        # from_pretrained under ZeRO-3 fails an assertion about the batch size unless DeepSpeed knows the group.
        deepspeed.init_distributed(verbose=False)
    return made


def _facts(run: RunArguments, arguments: Any) -> dict[str, Any]:
    section = {key: value for key, value in asdict(run.spectrum).items() if value is not None}
    plugin, shard = arguments.deepspeed_plugin, "fsdp2" if arguments.fsdp else "none"
    if plugin is not None:
        shard = f"zero{plugin.hf_ds_config.get_value('zero_optimization.stage', 0)}"
    config = {**run.given, "spectrum": section}
    return {"method": run.spectrum.method, "model": run.model_name, "shard": shard, "config": config}


@contextlib.contextmanager
def lost_processes_explained(home: Path) -> Iterator[None]:
    """Say what has happened and how to go on where a collective failed because another process is gone.

    Raises:
        RankError: that has happened.
    """
    try:
        yield
    except RuntimeError as cause:
        words = str(cause).lower()
        if not any(sign in words for sign in _SIGNS_OF_LOSS):
            raise
        found, _ = last_whole(home)
        rest = (
            f"the last whole checkpoint is {found}; go on from it with --set resume_from_checkpoint=true"
            if found is not None
            else "there is no checkpoint yet; save_steps says how often one is written"
        )
        raise RankError(
            f"another process of this run has ended, and the run with it; {rest} (found by this one as: "
            f"{str(cause).splitlines()[0][:160]})"
        ) from cause
