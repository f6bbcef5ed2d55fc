"""What a person decides about a run: method, precision, parallelism, batch. Checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from spectrum_fast.checks import POSITIVE, Check, is_number
from spectrum_fast.errors import UsageError
from spectrum_fast.options import Option, Options


class Method(NamedTuple):
    """What a method trains: which modules of a scan (None: all), adapters on them, a 4-bit base."""

    order: str | None
    adapters: bool = False
    quantised: bool = False


METHODS = {
    "full": Method(None),
    "lora": Method(None, adapters=True),
    "qlora": Method(None, adapters=True, quantised=True),
    "spectrum": Method("top"),
    "spectrum-lora": Method("top", adapters=True),
    "spectrum-qlora": Method("top", adapters=True, quantised=True),
    "random": Method("random"),
    "bottom": Method("bottom"),
}
"""Of training; ``random`` and ``bottom`` take as many modules as ``spectrum`` does."""

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a number of the model's weights and activations."""

_TYPES = tuple(DTYPE_BYTES)
_PROBABILITY = Check(lambda value: is_number(value) and 0 <= value < 1, "a number in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingSetup(Options):
    """A run, as far as its memory depends on it.

    Raises:
        UsageError: a value is unknown, out of range, or contradicts another.
    """

    method: Annotated[
        str,
        Option(
            "full, lora, qlora, spectrum, spectrum-lora, spectrum-qlora, random...",
            choices=tuple(METHODS),
        ),
    ] = "spectrum"
    gpus: Annotated[int, Option("Processes, one a GPU.", metavar="N", check=POSITIVE)] = 1
    zero: Annotated[
        int, Option("ZeRO stage; 0 is plain torch.", "With several GPUs DDP.", metavar="0|2|3", choices=(0, 2, 3))
    ] = 3
    fsdp2: Annotated[bool, Option("FSDP2; with --zero 0.", flags=("--fsdp2",))] = False
    autocast: Annotated[
        bool,
        Option(
            "Without ZeRO: trained weights float32, arithmetic of 16 bits.",
            "As ``spectrum-fast train`` and TRL do by default; bfloat16, or float16 where ``dtype`` is that. Without "
            "it ``dtype`` is the type of everything.",
            flags=("--autocast/--no-autocast",),
        ),
    ] = True
    dtype: Annotated[
        str,
        Option(
            "Of frozen weights: bf16, fp16 or fp32.",
            "Under ZeRO of all, beside float32 masters and states.",
            choices=_TYPES,
        ),
    ] = "bf16"
    optimizer: Annotated[
        str,
        Option(
            "adamw, adamw-8bit, lion, sgd.",
            choices=("adamw", "adamw-8bit", "lion", "sgd", "sgd-momentum"),
        ),
    ] = "adamw"
    offload: Annotated[
        str,
        Option(
            "none, optimizer or all.",
            "Masters, states and gradients of ZeRO go to host memory, with ``all`` (ZeRO-3) the weights as well.",
            metavar="WHAT",
            choices=("none", "optimizer", "all"),
        ),
    ] = "none"
    seq_len: Annotated[int, Option("Tokens a sequence.", metavar="N", check=POSITIVE)] = 2048
    micro_batch: Annotated[int, Option("Sequences a GPU and pass.", metavar="N", check=POSITIVE)] = 1
    gradient_accumulation: Annotated[
        int, Option("Micro-batches a step.", metavar="N", check=POSITIVE, flags=("--accumulate",))
    ] = 1
    checkpointing: Annotated[
        str, Option("layer keeps only the inputs of layers.", choices=("none", "layer"), python_only=True)
    ] = "none"
    attention: Annotated[
        str,
        Option("flash (SDPA too) or eager.", "Only eager stores the scores.", choices=("flash", "eager")),
    ] = "flash"
    loss: Annotated[
        str,
        Option(
            "logits (whole) or fused.",
            "From all logits in float32 (transformers), or never whole in memory (Liger, chunked losses).",
            choices=("logits", "fused"),
        ),
    ] = "logits"
    lora_rank: Annotated[int, Option("Rank of adapters.", metavar="R", check=POSITIVE)] = 16
    lora_dropout: Annotated[float, Option("Before the adapters.", check=_PROBABILITY, python_only=True)] = 0.0
    adapter_dtype: Annotated[str, Option("PEFT makes adapters float32.", choices=_TYPES, python_only=True)] = "fp32"
    double_quantisation: Annotated[bool, Option("Of the scales of NF4.", python_only=True)] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fsdp2 and (self.zero or self.gpus < 2 or self.quantises):
            raise UsageError(
                f"fsdp2: expected zero 0, several GPUs and a model that is not quantised, found zero {self.zero}, "
                f"{self.gpus} GPUs and method {self.method}"
            )
        if self.offload != "none" and self.zero == 0 and not self.fsdp2:
            raise UsageError(f"offload {self.offload!r} is DeepSpeed's, found zero 0 (plain torch); use zero 2 or 3")
        if self.fsdp2 and self.offload == "optimizer":
            raise UsageError("offload 'optimizer': FSDP2 moves all or nothing; use offload all")
        if self.offload == "all" and self.zero != 3 and not self.fsdp2:
            raise UsageError(f"offload 'all' moves partitioned weights, found zero {self.zero}; use zero 3")

    @property
    def element_bytes(self) -> int:
        """Bytes of a frozen weight."""
        return DTYPE_BYTES[self.dtype]

    @property
    def autocasts(self) -> bool:
        """Whether the arithmetic is narrower than the trained weights; DeepSpeed narrows the weights instead."""
        return self.autocast and self.zero == 0

    @property
    def autocast_dtype(self) -> str:
        """The type of autocast's arithmetic."""
        return "fp16" if self.dtype == "fp16" else "bf16"

    @property
    def used_bytes(self) -> int:
        """Bytes of a weight in the arithmetic."""
        return DTYPE_BYTES[self.autocast_dtype if self.autocasts else self.dtype]

    @property
    def trained_dtype(self) -> str:
        """Of trained weights; ZeRO holds adapters in the model's type."""
        if self.adapts and self.zero == 0:
            return self.adapter_dtype
        return "fp32" if self.autocasts else self.dtype

    @property
    def divides(self) -> bool:
        """Whether each process keeps a part of every gradient."""
        return self.zero > 0 or self.fsdp2

    @property
    def holds_gradients(self) -> bool:
        """Whether gradients are there from the start of a pass: ZeRO-3's buffer, or those of the micro-batch before."""
        return self.zero == 3 or self.gradient_accumulation > 1

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained on a frozen model."""
        return METHODS[self.method].adapters

    @property
    def selects(self) -> bool:
        """Whether a share of the modules is chosen."""
        return METHODS[self.method].order is not None

    @property
    def quantises(self) -> bool:
        """Whether the frozen weights are NF4."""
        return METHODS[self.method].quantised
