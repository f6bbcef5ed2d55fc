"""``--ray [ADDRESS]``: an option whose value may be left out, which the parser knows no other way to declare."""

from __future__ import annotations

import typer
from typer.core import TyperCommand


class RayCommand(TyperCommand):
    """A command that takes ``--ray`` without an address at the end of the line or before another option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse, with the empty address where none was given."""
        whole: list[str] = []
        for place, word in enumerate(args):
            bare = word == "--ray" and (place + 1 == len(args) or args[place + 1].startswith("-"))
            whole.append("--ray=" if bare else word)
        return super().parse_args(ctx, whole)  # pyright: ignore[reportArgumentType]
