"""Triton's interpreter without what it does over and over: three quarters of a test's time.

At every call of a device function it looks through all names of ``triton.language`` for those to replace, although the
launch has replaced them; for every array it makes its table of numpy's types anew, and for every value the type of its
block and the constants of its shape; and after every sum of integers it computes whether that overflowed, for an
assertion that only its debug mode has.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def make_sooner() -> None:
    """Same replacements, same types, each found once."""
    interpreter._patch_lang = _once_a_launch(interpreter._patch_lang)
    interpreter._get_np_dtype = _once_a_type(interpreter._get_np_dtype)
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    _make_block_types_once()
    tl.tensor.__init__ = _with_shape_of_its_type


def _once_a_launch(patch: Any) -> Any:
    """The interpreter's patch, but for modules that are patched as it is: those of a launch until it has ended."""
    scopes: dict[Any, Any] = {}
    modules_of = functools.cache(lambda fn: [lang for lang in (tl, tl.core) if lang in fn.__globals__.values()])

    def patch_once(fn: Any) -> Any:
        modules = modules_of(fn)
        if all(module in scopes and scopes[module]._changes for module in modules):
            return interpreter._LangPatchScope()
        scope = patch(fn)
        scopes.update(dict.fromkeys(modules, scope))
        return scope

    return patch_once


def _once_a_type(find: Any) -> Any:
    """The interpreter's search for the type of an array, by the type's name, which says all of it."""
    known: dict[str, Any] = {}

    def find_once(dtype: Any) -> Any:
        found = known.get(dtype.name)
        if found is None:
            found = known[dtype.name] = find(dtype)
        return found

    return find_once


def _make_block_types_once() -> None:
    """One type of block for a type of numbers and a shape; it is never changed."""
    kind: Any = tl.block_type
    initialise, make_once = kind.__init__, functools.cache(lambda *_: object.__new__(kind))

    def find(_: Any, element: Any, shape: Sequence[Any]) -> Any:
        return make_once(element.name, *(size.value if isinstance(size, tl.constexpr) else size for size in shape))

    def initialise_once(self: Any, element: Any, shape: Sequence[Any]) -> None:
        if "numel" not in vars(self):
            initialise(self, element, shape)

    kind.__new__, kind.__init__ = find, initialise_once


def _with_shape_of_its_type(self: Any, handle: Any, type: Any) -> None:
    """What ``tensor.__init__`` does, its constants made once a type."""
    self.handle, self.type, self.dtype = handle, type, type.scalar
    constants = vars(type).get("constants")
    if constants is None:
        shape = type.shape if type.is_block() else ()
        type.constants = constants = tl.constexpr(math.prod(shape)), tl.tuple([tl.constexpr(size) for size in shape])
    self.numel, self.shape = constants
