"""Figures in sentences."""

from __future__ import annotations


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count_of(1, "entry", "entries"), count_of(2, "entry", "entries"), count_of(1200, "module")
    ('1 entry', '2 entries', '1,200 modules')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share_of_bytes(part: int, whole: int) -> str:
    """Two sizes in the unit that suits the larger one.

    >>> share_of_bytes(5 << 20, 12 << 20), share_of_bytes(3 << 30, 15 << 30), share_of_bytes(7, 900)
    ('5.00 of 12.00 MiB', '3.00 of 15.00 GiB', '7 of 900 bytes')
    """
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if whole >= 1 << shift:
            return f"{part / (1 << shift):.2f} of {whole / (1 << shift):.2f} {unit}"
    return f"{part} of {whole} bytes"
