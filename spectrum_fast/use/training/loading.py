"""The model and the tokenizer of a run. No code that comes with a checkpoint is run."""

# pyright: reportPrivateImportUsage=false
# trl exports by a lazy module that pyright cannot follow.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import SFTConfig

    from spectrum_fast.use.training.config import TrainConfig


def load_model(config: TrainConfig, arguments: SFTConfig) -> PreTrainedModel:
    """Load the model in the configured type, in 4 bits where the method says so.

    Under ZeRO-3 the parameters are divided while they are read, except those of a quantised model.

    Raises:
        CheckpointError: it cannot be loaded.
        UsageError: bitsandbytes is not installed but needed.
    """
    import transformers
    from trl import get_quantization_config

    chosen = config.model_config()
    options: Any = {
        "revision": chosen.model_revision,
        "attn_implementation": chosen.attn_implementation,
        "dtype": chosen.dtype,
        **(arguments.model_init_kwargs or {}),  # pyright: ignore[reportGeneralTypeIssues] - a mapping by now
        "trust_remote_code": False,
    }
    quantisation = get_quantization_config(chosen)
    if quantisation is not None:
        _require_bitsandbytes(config)
        options["quantization_config"] = quantisation
    try:
        description = transformers.AutoConfig.from_pretrained(
            config.model_name, revision=chosen.model_revision, trust_remote_code=False
        )
        named = (description.architectures or [""])[0]
        architecture = getattr(transformers, named, transformers.AutoModelForCausalLM)
        return architecture.from_pretrained(config.model_name, **options)
    except (OSError, ValueError) as cause:
        raise CheckpointError(
            f"{config.source}: model_name_or_path {config.model_name}: cannot be loaded: {cause}"
        ) from cause


def load_tokenizer(config: TrainConfig) -> Any:
    """The tokenizer beside the model.

    Raises:
        CheckpointError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            config.model_name, revision=config.model.get("model_revision", "main"), trust_remote_code=False
        )
    except (OSError, ValueError) as cause:
        where = "the folder" if Path(config.model_name).is_dir() else "the hub"
        raise CheckpointError(
            f"{config.source}: model_name_or_path {config.model_name}: expected a tokenizer in {where}, found none "
            f"that can be read: {cause}"
        ) from cause


def _require_bitsandbytes(config: TrainConfig) -> None:
    try:
        import bitsandbytes  # noqa: F401 - is it here?
    except ImportError as missing:
        raise UsageError(
            f"{config.source}: spectrum.method {config.method.name}: needs the package bitsandbytes; install it: "
            "pip install bitsandbytes"
        ) from missing
