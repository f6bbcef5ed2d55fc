"""A reader of the little JSON that headers and indexes need, safe on hostile bytes.

The standard parser builds whatever a file describes: a hundred megabytes of ``[[[[`` or of ``[0,0,0`` cost gigabytes or
the interpreter's stack before anything can be checked. This cursor walks over the bytes instead, takes only what the
caller expects next, and stops at the first byte that is something else. Memory is what the caller keeps.
(Typed decoders build everything first too, and msgspec 0.22 keeps the last of two equal names without a word.)
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import count

MAX_DEPTH = 64
"""Nesting allowed in a value that is skipped; safetensors indexes use 2."""

_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN = re.compile(rb'"[^"\\\x00-\x1f]*"')
# At most 256 pieces a match, so that the pattern never keeps more than that to backtrack into.
_PIECES = re.compile(rb'(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,256}')
_INTEGER = re.compile(rb"(?:0|[1-9][0-9]{0,19})(?![0-9.eE])")
_SCALAR = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,10})?")
_DECODE_STEP_BYTES = 1 << 20
_MAX_SKIPPED_KEY_BYTES = 1 << 16


class JsonError(ValueError):
    """The bytes are not the JSON that was expected; the message says what and where."""


class JsonCursor:
    """A position in JSON bytes.

    Attributes:
        data: the whole document.
        position: index of the next byte to look at.
    """

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def fail(self, expected: str) -> JsonError:
        """Make the error that says what was expected here and what was found."""
        found = self.data[self.position : self.position + 24]
        shown = repr(found)[1:] if found else "the end"
        return JsonError(f"expected {expected} at byte {self.position}, found {shown}")

    def skip_space(self) -> None:
        """Go to the next byte that is not JSON white space."""
        match = _SPACE.match(self.data, self.position)
        if match is not None:
            self.position = match.end()

    def take(self, character: bytes) -> bool:
        """Skip white space; step over ``character`` if it is next and say whether it was."""
        self.skip_space()
        if not self.data.startswith(character, self.position):
            return False
        self.position += 1
        return True

    def expect(self, character: bytes, what: str) -> None:
        """Step over ``character`` or raise :class:`JsonError` saying that ``what`` was expected."""
        if not self.take(character):
            raise self.fail(what)

    def end(self) -> None:
        """Make sure that only white space is left."""
        self.skip_space()
        if self.position != len(self.data):
            raise self.fail("nothing more")

    def string(self, what: str, limit_bytes: int) -> str:
        """Read a string of at most ``limit_bytes`` stored bytes.

        Raises:
            JsonError: no string here, too long, not UTF-8, a lone surrogate, or a bad escape.
        """
        end = self._string_end(what)
        if end - self.position - 1 > limit_bytes:
            self.skip_string(what)
            raise JsonError(f"{what} before byte {self.position} is longer than {limit_bytes} bytes")
        raw = self.data[self.position + 1 : end]
        try:
            value = raw.decode("utf-8")
            if b"\\" in raw:
                value = json.loads(f'"{value}"')
                value.encode("utf-8")  # a lone surrogate, which JSON can spell but no text can hold
        except UnicodeError as error:
            raise JsonError(f"{what} at byte {self.position} is not valid UTF-8 ({error})") from error
        self.position = end + 1
        return value

    def skip_string(self, what: str) -> None:
        """Step over a string of any length, of which no copy is made.

        Raises:
            JsonError: no string here, not UTF-8, or a bad escape.
        """
        end = self._string_end(what)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for step in range(self.position + 1, end, _DECODE_STEP_BYTES):
                decoder.decode(self.data[step : min(step + _DECODE_STEP_BYTES, end)])
            decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise JsonError(f"the string at byte {self.position} is not valid UTF-8 ({error})") from error
        self.position = end + 1

    def integers(self, what: str, limit: int) -> list[int]:
        """Read a list of at most ``limit`` non-negative integers of at most 20 digits, without sign or fraction."""
        values: list[int] = []
        for place in self.items(what):
            if place == limit:
                raise JsonError(f"{what} has more than {limit} entries at byte {self.position}")
            self.skip_space()
            match = _INTEGER.match(self.data, self.position)
            if match is None:
                raise self.fail(f"{what} (a non-negative integer of at most 20 digits)")
            self.position = match.end()
            values.append(int(match.group()))
        return values

    def items(self, what: str) -> Iterator[int]:
        """Walk over a list: yields the number of each item with the cursor at it, which the caller must consume."""
        return self._entries(what, "(a list)", b"[", b"]")

    def keys(self, what: str, limit_bytes: int) -> Iterator[str]:
        """Walk over an object: yields each key with the cursor at its value, which the caller must consume.

        Duplicate keys are not looked for here; the caller knows which keys it keeps.
        """
        for _ in self._entries(what, "(an object)", b"{", b"}"):
            key = self.string(f"a key of {what}", limit_bytes)
            self.expect(b":", f"':' after the key in {what}")
            yield key

    def skip_value(self, what: str, depth: int = 0) -> None:
        """Step over one value of any kind, checking its syntax, without building it.

        Raises:
            JsonError: not JSON, or nested deeper than :data:`MAX_DEPTH`.
        """
        self.skip_space()
        head = self.data[self.position : self.position + 1]
        if head in (b"{", b"["):
            if depth == MAX_DEPTH:
                raise JsonError(f"{what} is nested deeper than {MAX_DEPTH} at byte {self.position}")
            for _ in self.keys(what, _MAX_SKIPPED_KEY_BYTES) if head == b"{" else self.items(what):
                self.skip_value(what, depth + 1)
        elif head == b'"':
            self.skip_string(what)
        else:
            match = _SCALAR.match(self.data, self.position)
            if match is None:
                raise self.fail(f"a value of {what}")
            self.position = match.end()

    def _entries(self, what: str, kind: str, begin: bytes, end: bytes) -> Iterator[int]:
        """Numbers of the entries between two brackets, commas between them."""
        self.expect(begin, f"{what} {kind}")
        if self.take(end):
            return
        for place in count():
            yield place
            if not self.take(b","):
                break
        self.expect(end, f"',' or '{end.decode()}' in {what}")

    def _string_end(self, what: str) -> int:
        """Place of the closing quote of the string that is next; :attr:`position` is then at the opening one."""
        self.skip_space()
        plain = _PLAIN.match(self.data, self.position)
        if plain is not None:
            return plain.end() - 1
        if not self.data.startswith(b'"', self.position):
            raise self.fail(f"{what} (a string)")
        end = self.position + 1
        while (match := _PIECES.match(self.data, end)) is not None and match.end() > end:
            end = match.end()
        if not self.data.startswith(b'"', end):
            self.position = end
            raise self.fail(f"the rest of {what} (closing quote, valid escapes, no control characters)")
        return end
