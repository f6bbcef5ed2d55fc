"""Options of commands: a class of options as those of one, and what several commands declare alike."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from spectrum_fast.options import Option, Options, options_of

Include = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Only modules like this; repeatable.")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Not these modules; repeatable.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; default is stdout.")
]
SliderStart = Annotated[float, typer.Option(metavar="P", help="Share of each type at which a report's slider starts.")]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a command: a parameter whose type is a class of options stands for all of them.

    The command gets the class, made of what was given; what the class refuses is the command's error.
    """
    parameters: list[inspect.Parameter] = []
    classes: dict[str, tuple[type[Options], dict[str, Any]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation  # `get_type_hints` of Python 3.10 hides what has the default None from Typer
        if isinstance(kind, type) and issubclass(kind, Options):
            shown = [(entry, option) for entry, option in options_of(kind) if not option.python_only]
            classes[parameter.name] = kind, {entry.name: entry.default for entry, _ in shown}
            parameters += [_declare(entry, option) for entry, option in shown]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, (kind, defaults) in classes.items():
            values = {key: given.pop(key) for key in defaults}
            given[name] = kind(**{key: defaults[key] if value is None else value for key, value in values.items()})
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _declare(entry: inspect.Parameter, option: Option) -> inspect.Parameter:
    """One option as Typer reads it."""
    flags = option.flags or (f"--{entry.name.replace('_', '-')}",)
    kind, default = entry.annotation, entry.default
    if get_origin(kind) is Sequence or Sequence[str] in get_args(kind):
        kind, default = list[str] | None, None
    elif os.PathLike[str] in get_args(kind):
        kind = Path | None
    elif any(get_origin(one) is Literal for one in (kind, *get_args(kind))):
        kind = str if default is not None else str | None  # the class refuses other words, in its own

    def complete(incomplete: str) -> list[str]:
        return [word for word in map(str, option.choices) if word.startswith(incomplete)]

    metavar = option.metavar or ("NAME" if option.choices else None)
    declared = typer.Option(*flags, metavar=metavar, help=option.help, autocompletion=complete)
    return entry.replace(annotation=Annotated[kind, declared], default=default, kind=inspect.Parameter.KEYWORD_ONLY)


class RayCommand(TyperCommand):
    """A command that takes ``--ray [ADDRESS]`` without the address too, at the end of the line or before an option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse, with the empty address where none was given."""
        whole: list[str] = []
        for place, word in enumerate(args):
            bare = word == "--ray" and (place + 1 == len(args) or args[place + 1].startswith("-"))
            whole.append("--ray=" if bare else word)
        return super().parse_args(ctx, whole)  # pyright: ignore[reportArgumentType]
