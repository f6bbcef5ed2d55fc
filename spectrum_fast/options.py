"""An option is declared once: a field of a frozen dataclass that says its type, default, help and check.

    @dataclass(frozen=True, kw_only=True)
    class ScanOptions(Options):
        threads: Annotated[int | None, Option("CPU threads.", metavar="N", check=AT_LEAST_ONE)] = None

All else derives from that: the class checks its values when it is made, :func:`takes_options` gives a Python function
these keywords, with their types, for people, editors and type checkers, ``use/cli/options.py`` gives them to a command,
and the pages of the documentation are made from both.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from spectrum_fast.checks import Check
from spectrum_fast.errors import UsageError
from spectrum_fast.words import near_names_text

_P = ParamSpec("_P")
_Made = TypeVar("_Made")
_Subject = TypeVar("_Subject")
_Result = TypeVar("_Result")

_PLACE_OF_OPTIONS = re.compile(r"^( +)options:.*$", re.MULTILINE)
"""Where in the docstring of a function that takes options their own words are put in; its line goes."""


@dataclass(frozen=True)
class Option:
    """What the type of an option does not say.

    Attributes:
        help: what it does, in a line; shown by commands, in Python and on the site.
        more: what else one should know, shown in Python and on the site.
        metavar: what a command's help calls the value; where there are choices, NAME unless this says otherwise.
        choices: the words that are allowed, of a Literal by themselves; empty where ``check`` decides.
        check: what the value must be, unless it is None.
        flags: how a command calls it, instead of ``--name``.
        python_only: commands do not have it.
    """

    help: str
    more: str = ""
    metavar: str | None = None
    choices: Sequence[object] = ()
    check: Check | None = None
    flags: tuple[str, ...] = ()
    python_only: bool = False

    def refuse_wrong(self, name: str, value: Any) -> None:
        """Raise what is wrong with a value, if anything is.

        Raises:
            UsageError: the option has no such value.
        """
        if self.choices and value not in self.choices:
            words = [str(choice) for choice in self.choices]
            near = near_names_text(str(value), words)
            raise UsageError(f"unknown {name} {value!r}: expected one of {', '.join(words)}{near}")
        if self.check is not None and value is not None and not self.check.test(value):
            raise UsageError(f"{name.replace('_', ' ')}: expected {self.check.expected}, found {value!r}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of the classes whose fields are options.

    Raises:
        UsageError: on making one: a value is none that its option has.
    """

    def __post_init__(self) -> None:
        for parameter, option in options_of(type(self)):
            option.refuse_wrong(parameter.name, getattr(self, parameter.name))


@functools.cache
def options_of(options: type) -> tuple[tuple[inspect.Parameter, Option], ...]:
    """Each option: its name, type and default, and the rest; the class's own first, then those of its base."""
    # The mark before fields that are passed by name alone is no type, and Python 3.10 refuses to look at it.
    hints = get_type_hints(options, localns={"KW_ONLY": object}, include_extras=True)
    found = []
    for field in sorted(dataclasses.fields(options), key=lambda field: field.name not in options.__annotations__):
        kind = hints[field.name]
        if get_origin(kind) is not Annotated:
            raise TypeError(f"{options.__name__}.{field.name}: an option is declared as Annotated[type, Option(...)]")
        annotation, option = get_args(kind)
        if get_origin(annotation) is Literal:
            option = dataclasses.replace(option, choices=get_args(annotation))
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        named = inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameter = inspect.Parameter(field.name, named, default=default, annotation=annotation)
        found.append((parameter, option))
    return tuple(found)


def takes_options(
    options: Callable[_P, _Made],
) -> Callable[[Callable[[_Subject, _Made], _Result]], Callable[Concatenate[_Subject, _P], _Result]]:
    """Decorator: ``function(subject, options)`` is called as ``function(subject, name=value, ...)``.

    Its signature shows every option with type and default, and its docstring the words of each.

    Args:
        options: the class whose fields are the options.
    """
    assert isinstance(options, type)  # noqa: S101 - what its caller writes down, no input
    declared = options_of(options)

    def decorate(function: Callable[[_Subject, _Made], _Result]) -> Callable[Concatenate[_Subject, _P], _Result]:
        written = inspect.signature(function, eval_str=True)
        subject = next(iter(written.parameters.values()))
        signature = written.replace(parameters=[subject, *(parameter for parameter, _ in declared)])

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            try:
                bound = signature.bind(*given, **named).arguments
            except TypeError as error:  # what Python says of a wrong call, but for the name
                raise TypeError(f"{function.__name__}() {error}") from None
            return function(bound.pop(subject.name), options(**bound))

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__annotations__ = {name: kind.annotation for name, kind in signature.parameters.items()} | {
            "return": signature.return_annotation
        }
        call.__doc__ = _with_words(function.__doc__ or "", options)
        return call  # type: ignore[return-value]

    return decorate


def describe(option: Option) -> str:
    """All words of an option."""
    return f"{option.help} {option.more}".strip()


def _with_words(doc: str, options: type) -> str:
    """The docstring with the words of the options in place of its line on them."""

    def words(place: re.Match[str]) -> str:
        indent = place[1]
        return "\n".join(
            textwrap.fill(
                f"{parameter.name}: {describe(option)}", 120, initial_indent=indent, subsequent_indent=f"{indent}    "
            )
            for parameter, option in options_of(options)
        )

    return _PLACE_OF_OPTIONS.sub(words, doc)
