"""Bytes of a weight in bitsandbytes' NF4, to the byte."""

from __future__ import annotations

BLOCK = 64
"""Numbers that share a scale (bitsandbytes' default for 4-bit weights)."""

NESTED_BLOCK = 256
"""Scales that share a scale of their own with double quantisation."""

_CODE_BOOK_BYTES = 16 * 4
_NESTED_CODE_BOOK_BYTES = 256 * 4
_OFFSET_BYTES = 4


def nf4_code_bytes(count: int) -> int:
    """Bytes of the codes of ``count`` numbers: two a byte.

    >>> nf4_code_bytes(4096)
    2048
    """
    return -(-count // 2)


def nf4_scale_bytes(count: int, double: bool) -> int:
    """Bytes of everything beside the codes: scales and code books.

    One float32 a block of 64; with double quantisation one byte a block of 64, one float32 a block of 256 scales, their
    mean and the second code book. Source: Dettmers et al. 2023, arXiv 2305.14314, section 3; held to the tensors that
    bitsandbytes makes (tests/choose/planner/test_packed.py).

    >>> nf4_scale_bytes(4096, False)
    320
    """
    scales = -(-count // BLOCK)
    if not double:
        return 4 * scales + _CODE_BOOK_BYTES
    return scales + 4 * -(-scales // NESTED_BLOCK) + _OFFSET_BYTES + _CODE_BOOK_BYTES + _NESTED_CODE_BOOK_BYTES
