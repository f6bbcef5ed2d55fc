"""What a scan is asked for, checked before anything is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from spectrum_fast.checks import FLAG, PERCENT, Check, is_count
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.options import SpectrumOptions
from spectrum_fast.options import Option
from spectrum_fast.scanning.step import ScanProgress

if TYPE_CHECKING:
    from spectrum_fast.read.stream import StreamOptions
    from spectrum_fast.scanning.plan import ScanPlan

_AT_LEAST_ONE = Check(lambda value: is_count(value) and value > 0, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ScanOptions(SpectrumOptions):
    """The options of :func:`spectrum_fast.scan`: what is scored and how, and what is kept.

    Raises:
        UsageError: one is out of range.
        BackendUnavailableError: the device was asked for by name and cannot be used.
    """

    out: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "Scan file to write (JSON); else ./NAME.scan.json.",
            "From Python there is none without a name; the command's own name never takes the place of another scan. "
            "Until all is done finished modules are kept in a journal beside it, ``.NAME.journal``, which is deleted "
            "once the scan file is written, unless a module failed by a fault of this program or for want of memory: "
            "then it stays, with the traceback. A live model keeps none: it changes.",
            metavar="FILE",
        ),
    ] = None
    device: Annotated[
        str,
        Option(
            "auto, cpu or cuda.",
            "Or ``cuda:N``. A GPU must first compute known spectra right, or it is refused; matrices of one shape are "
            "scored together on it, and what its memory does not hold goes to the CPU, which the record says. "
            "``auto`` is the first GPU where there is one that does, and the CPU anywhere else.",
            metavar="NAME",
        ),
    ] = "auto"
    minus: Annotated[
        str | None,
        Option(
            "Score what training changed: MODEL minus this base.",
            "Any checkpoint whose modules have the same names, in any formats that are decoded. Both are read side by "
            "side; all singular values of the differences are kept (``spectra``). What one of the two lacks is named "
            "and left out.",
            metavar="BASE",
        ),
    ] = None
    angles: Annotated[
        bool,
        Option(
            "With --minus: how what changed lies to its base.",
            "The angles between the leading singular subspaces of base and difference, of as many directions as the "
            "difference has above the edge of noise (32 at most): ``left_cosine``, ``left_overlap``, ``right_cosine`` "
            "and ``right_overlap`` of a module. It costs two randomized SVDs a matrix; those read in blocks have none.",
            check=FLAG,
        ),
    ] = False
    plus: Annotated[
        str | None,
        Option(
            "Score an adapter together with its base, as merged.",
            "MODEL is the folder of a LoRA adapter; without this it is scanned as the difference that it makes.",
            metavar="BASE",
        ),
    ] = None
    include: Annotated[
        Sequence[str],
        Option(
            "Only modules like '*.mlp.*' or 're:...'; repeatable.",
            "Shell-style patterns of module names; empty means all.",
            metavar="PATTERN",
        ),
    ] = ()
    exclude: Annotated[Sequence[str], Option("Leave these modules out; repeatable.", metavar="PATTERN")] = ()
    include_norms: Annotated[
        bool, Option("Score 1-D weights too.", "As one row each, like the reference implementation.")
    ] = False
    split_fused: Annotated[
        bool,
        Option(
            "Score q, k, v (gate, up) of fused matrices singly.",
            "These are ``qkv_proj``, ``gate_up_proj``, ``query_key_value``, ``Wqkv`` and ``c_attn``; a weight whose "
            "layout the configuration does not tell is a failure.",
        ),
    ] = False
    top_percent: Annotated[
        float | None,
        Option(
            "Refine cuts at this share of a type.",
            "Where two scores at that cut are nearer than their error bounds, both are computed again in float64 "
            "(method and precision ``auto`` only; ``provenance`` names them as ``refined``). None, and a live model, "
            "leave every cut as it is.",
            metavar="P",
            check=PERCENT,
        ),
    ] = 25.0
    spectra: Annotated[
        bool,
        Option(
            "Keep all singular values in NAME.spectra.safetensors.",
            "8 bytes each, with their bounds, beside ``out``; in memory without one: "
            "``scan.module(name).singular_values``. The scan can then be asked by criteria that need them (``select "
            "--criterion alpha``). A model of 70B has 4 million, which is 32 MB.",
            check=FLAG,
        ),
    ] = False
    threads: Annotated[
        int | None, Option("CPU threads.", "None leaves torch's setting.", metavar="N", check=_AT_LEAST_ONE)
    ] = None
    no_store: Annotated[bool, Option("Read a hub id over the network, keep no file.")] = False
    buffer_gib: Annotated[
        float | None,
        Option(
            "Hard limit of the reading buffer, GiB.",
            "A matrix larger than half of it is read and scored block by block. None: 2 (4 for a GPU), or an eighth of "
            "the memory if that is less, touched only as needed.",
            metavar="G",
        ),
    ] = None
    direct_io: Annotated[
        str,
        Option(
            "Past the page cache: off, auto or on.",
            "``on`` is O_DIRECT or an error, ``auto`` takes it where the file system allows.",
            metavar="MODE",
        ),
    ] = "off"
    ray: Annotated[
        str | None,
        Option(
            "Score by Ray: a cluster's address, or local.",
            "Empty: the cluster that ``RAY_ADDRESS`` names or that runs here, else workers on this machine. Each task "
            "has ``threads`` CPUs, or one, and with the device ``cuda`` a GPU; all machines must see the checkpoint. "
            "Journal, scan and progress are those of one process, and so is the file.",
            metavar="[ADDRESS]",
        ),
    ] = None
    restart: Annotated[bool, Option("Throw away what an interrupted scan left.")] = False
    journal: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "The journal's path, to keep it elsewhere.",
            "Without ``out`` it stays, complete, and is yours to delete.",
            python_only=True,
        ),
    ] = None
    progress: Annotated[
        Callable[[ScanProgress], None] | None,
        Option("Called at the beginning and after every tensor.", "None: a bar in a notebook.", python_only=True),
    ] = None

    def __post_init__(self) -> None:
        if self.minus is not None:
            object.__setattr__(self, "spectra", True)
            if self.criterion == "auto":
                object.__setattr__(self, "criterion", "mp")
        super().__post_init__()
        if self.minus is not None and self.plus is not None:
            raise UsageError("minus and plus both name a base; give one of them")
        if self.angles and self.minus is None:
            raise UsageError("angles: expected a base to compare with, found none; name it by minus (--minus BASE)")
        object.__setattr__(self, "device", _choose_device(self.device, self.criterion, here=self.ray is None))
        if self.ray is not None:
            object.__setattr__(self, "threads", self.threads or 1)
        _ = self.stream  # checks the two that concern reading

    @property
    def stream(self) -> StreamOptions:
        """How weights are read; no score depends on it beyond its last bits."""
        from spectrum_fast.read.stream import StreamOptions  # loads torch, which a command's help does without

        gib = self.buffer_gib
        if gib is not None and not 0 < gib < math.inf:
            raise UsageError(f"buffer_gib: expected a positive number, found {gib!r}")
        buffer_bytes = None if gib is None else int(gib * 2**30)
        return StreamOptions(buffer_bytes, self.direct_io, device=self.device, digests=True)

    def require_buffer(self, plan: ScanPlan) -> None:
        """Say before a long scan, not in it, that a weight does not fit the buffer.

        Raises:
            UsageError: a packed weight, which is decoded whole, is larger.
        """
        from spectrum_fast.read.stream import required_buffer_bytes

        needed, found = required_buffer_bytes(plan.weights), self.stream.capacity_bytes
        if needed > found:
            largest = max(plan.weights, key=lambda weight: required_buffer_bytes([weight]))
            raise UsageError(
                f"buffer_gib: expected at least {needed / 2**30:.4f}, because {largest.name} is decoded or split "
                f"whole, found {found / 2**30:.4f}; give a larger --buffer-gib"
            )


def _choose_device(device: str, criterion: str, *, here: bool) -> str:
    """``auto`` is the CPU where no GPU computes known spectra right, which is asked ``here`` alone."""
    if device == "cpu" or (device == "auto" and not here):
        return "cpu"
    if device == "auto":
        from spectrum_fast.measure.scoring.criteria import find_criterion
        from spectrum_fast.measure.spectra.device_check import first_right_gpu

        return first_right_gpu(find_criterion(criterion)) or "cpu"
    if re.fullmatch(r"cuda(:[0-9]+)?", device) is None:
        raise UsageError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if here:
        from spectrum_fast.read.stream.device import require_cuda

        require_cuda(device)
    return device
