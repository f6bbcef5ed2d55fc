"""Triton's interpreter without what it does over and over: two fifths of a test's time.

At every call of a device function it looks through all names of ``triton.language`` for those to replace, although the
launch has replaced them, and for every array it makes its table of numpy's types anew.
"""

from __future__ import annotations

import functools
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def make_sooner() -> None:
    """Same replacements, same types, each found once."""
    interpreter._patch_lang = _once_a_launch(interpreter._patch_lang)
    interpreter._get_np_dtype = _once_a_type(interpreter._get_np_dtype)


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
