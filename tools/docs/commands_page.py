"""The page of commands, from the command line itself, so that it cannot say something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

HEAD = """# Commands

Made from the command line itself. Data goes to stdout, words for people to stderr; no command asks a question, so all
of them run in scripts. `NO_COLOR` and pipes switch colours off.

`spectrum-fast --install-completion` sets completion up for the shell it is run in, `--show-completion` prints it. For a
named shell, in a script: `_SPECTRUM_FAST_COMPLETE=source_bash spectrum-fast` (or `source_zsh`, `source_fish`).
"""


def commands_page() -> str:
    """Markdown: a section a command with its example, arguments and options."""
    return HEAD + "".join(f"\n{section(path, command)}" for path, command in iter_commands())


def iter_commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something: ``("scan", command)``, ``("scans list", command)``, ..."""
    import typer.main

    from spectrum_fast.use.cli.app import app

    def walk(group: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if command.hidden:
                continue
            if hasattr(command, "commands"):
                yield from walk(command, f"{path}{name} ")
            else:
                yield f"{path}{name}", command

    yield from walk(typer.main.get_command(app), "")


def examples(command: Any) -> list[str]:
    """The example lines of a command's help."""
    _, _, tail = (command.help or "").partition("Example:")
    lines = (line.strip() for line in tail.splitlines())
    return [line for line in lines if line.startswith("spectrum-fast ")]


def section(path: str, command: Any) -> str:
    """One command."""
    words = _plain((command.help or "").partition("Example:")[0])
    lines = [f"## {path}", "", words, "", "```text", *examples(command), "```", ""]
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    lines += ["| argument or option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name.upper()}`"
        default = "" if parameter.required else _default(parameter)
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
        name = ", ".join(f"`{option}{value}`" for option in (*parameter.opts, *parameter.secondary_opts))
        default = _default(parameter)
    return f"| {name} | {default} | {_cell(_plain(parameter.help or ''))} |"


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value == [] or callable(value):
        return ""
    return f"`{value}`"


def _plain(text: str) -> str:
    """Help text as Markdown: click's marks dropped, stars escaped."""
    return re.sub(r"([*<>])", r"\\\1", text.replace("\b", "").strip())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
