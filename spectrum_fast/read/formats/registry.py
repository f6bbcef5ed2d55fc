"""Every packed layout that is known, in the order in which they are tried: adding one is a file and a line here."""

from __future__ import annotations

from spectrum_fast.read.formats.awq import AWQ
from spectrum_fast.read.formats.bitsandbytes import FOUR_BIT, INT8
from spectrum_fast.read.formats.format import Format
from spectrum_fast.read.formats.gguf import GGUF
from spectrum_fast.read.formats.gptq import GPTQ
from spectrum_fast.read.formats.lora import LORA, LORA_EMBEDDING
from spectrum_fast.read.formats.mxfp4 import MXFP4
from spectrum_fast.read.formats.pack_quantized import PACK_QUANTIZED
from spectrum_fast.read.formats.refused import REFUSED
from spectrum_fast.read.formats.scaled import SCALED

FORMATS: tuple[Format, ...] = (
    GGUF,
    LORA,
    LORA_EMBEDDING,
    MXFP4,
    FOUR_BIT,
    INT8,
    PACK_QUANTIZED,
    AWQ,
    GPTQ,
    *REFUSED,
    SCALED,
)
"""Of those whose marks are there, the first is taken: a scale beside codes says less than any other mark."""
