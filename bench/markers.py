"""Text of a page between two markers, which a program writes."""

from __future__ import annotations


def replace_between(page: str, begin: str, end: str, text: str) -> str:
    """The page with ``text`` on lines of its own between its markers.

    Raises:
        ValueError: a marker is not there.
    """
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"expected the markers {begin!r} and {end!r} in the page, found not both of them")
    return f"{head}{begin}\n{text}\n{end}{tail}"
