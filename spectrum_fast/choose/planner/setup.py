"""What a person decides about a run: method, precision, parallelism, batch. Checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum_fast.errors import UsageError

METHODS = (
    "full",
    "lora",
    "qlora",
    "spectrum",
    "spectrum-lora",
    "spectrum-qlora",
    "random",
    "bottom",
)
"""Training methods a plan knows. ``random`` and ``bottom`` train as many modules as ``spectrum`` does."""

SELECTING_METHODS = frozenset({"spectrum", "spectrum-lora", "spectrum-qlora", "random", "bottom"})
ADAPTER_METHODS = frozenset({"lora", "qlora", "spectrum-lora", "spectrum-qlora"})
QUANTISED_METHODS = frozenset({"qlora", "spectrum-qlora"})

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a number of the model's weights and activations."""

OPTIMIZERS = ("adamw", "adamw-8bit", "lion", "sgd", "sgd-momentum")
OFFLOADS = ("none", "optimizer", "all")
CHECKPOINTING = ("none", "layer")
ATTENTIONS = ("flash", "eager")
LOSSES = ("logits", "fused")
ZERO_STAGES = (0, 2, 3)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A run, as far as its memory depends on it.

    Attributes:
        method: one of :data:`METHODS`.
        gpus: data-parallel processes, one a GPU.
        zero: DeepSpeed ZeRO stage 2 or 3, or 0 for plain torch (DistributedDataParallel with several GPUs).
        fsdp2: torch's FSDP2 instead; with ``zero`` 0.
        dtype: of frozen weights, a key of :data:`DTYPE_BYTES`; under ZeRO of all, beside float32 masters and states.
        autocast: with plain torch and FSDP2, what is trained is float32 and the arithmetic has 16 bits (bfloat16, or
            float16 where ``dtype`` is that), as ``spectrum-fast train`` and TRL do by default; without it ``dtype`` is
            the type of everything.
        optimizer: one of :data:`OPTIMIZERS`.
        offload: ``optimizer`` moves masters, states and gradients of ZeRO to host memory, ``all`` the weights as well
            (ZeRO-3).
        seq_len: tokens a sequence.
        micro_batch: sequences a GPU and forward pass.
        gradient_accumulation: micro-batches a step.
        checkpointing: ``layer`` keeps only the input of each layer and computes the rest again.
        attention: ``flash`` for kernels that do not store the scores (SDPA, FlashAttention), ``eager`` where they are.
        loss: ``logits`` where the loss is computed from all logits in float32 (transformers), ``fused`` where logits
            are never whole in memory (Liger, chunked losses).
        lora_rank: rank of the adapters.
        lora_dropout: dropout before the adapters, in [0, 1).
        adapter_dtype: of adapter weights; PEFT makes them float32.
        double_quantisation: whether the scales of NF4 are quantised too.
        persistence_threshold: ``stage3_param_persistence_threshold``: parameters of at most so many numbers stay
            whole. None for what transformers puts for ``auto``: ten times the hidden size.
        reduce_bucket: ``reduce_bucket_size``, numbers. None for ``auto``: the square of the hidden size.
        prefetch_bucket: ``stage3_prefetch_bucket_size``, numbers. None for ``auto``: nine tenths of that.
        max_live: ``stage3_max_live_parameters``, numbers.
        sub_group: ``sub_group_size``, numbers stepped at a time.

    Raises:
        UsageError: a value is unknown, out of range, or contradicts another.
    """

    method: str = "spectrum"
    gpus: int = 1
    zero: int = 3
    fsdp2: bool = False
    autocast: bool = True
    dtype: str = "bf16"
    optimizer: str = "adamw"
    offload: str = "none"
    seq_len: int = 2048
    micro_batch: int = 1
    gradient_accumulation: int = 1
    checkpointing: str = "none"
    attention: str = "flash"
    loss: str = "logits"
    lora_rank: int = 16
    lora_dropout: float = 0.0
    adapter_dtype: str = "fp32"
    double_quantisation: bool = True
    persistence_threshold: int | None = None
    reduce_bucket: int | None = None
    prefetch_bucket: int | None = None
    max_live: int = 1_000_000_000
    sub_group: int = 1_000_000_000

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                expected = ", ".join(map(str, known))
                raise UsageError(f"unknown {field} {getattr(self, field)!r}: expected one of {expected}")
        for field in _POSITIVE:
            if getattr(self, field) < 1:
                raise UsageError(f"{field}: expected a whole number of 1 or more, found {getattr(self, field)}")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout: expected a number in [0, 1), found {self.lora_dropout}")
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
        return self.method in ADAPTER_METHODS

    @property
    def selects(self) -> bool:
        """Whether a share of the modules is chosen."""
        return self.method in SELECTING_METHODS

    @property
    def quantises(self) -> bool:
        """Whether the frozen weights are NF4."""
        return self.method in QUANTISED_METHODS


_CHOICES: dict[str, tuple[object, ...]] = {
    "method": METHODS,
    "zero": ZERO_STAGES,
    "dtype": tuple(DTYPE_BYTES),
    "optimizer": OPTIMIZERS,
    "offload": OFFLOADS,
    "checkpointing": CHECKPOINTING,
    "attention": ATTENTIONS,
    "loss": LOSSES,
    "adapter_dtype": tuple(DTYPE_BYTES),
}
_POSITIVE = ("gpus", "seq_len", "micro_batch", "gradient_accumulation", "lora_rank", "sub_group")
