"""Completion as the shells use it: the script is sourced in bash and asked; zsh and fish where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m spectrum_fast"


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """A home and a ``spectrum-fast`` of our own on the path."""
    script = tmp_path / "bin" / "spectrum-fast"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {COMMAND} "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "HOME": str(tmp_path), "PATH": f"{script.parent}:{os.environ['PATH']}"}


def ask(environment: dict[str, str], *command: str, **extra: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**environment, **extra},
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_completes_commands_and_options(shell_environment: dict[str, str]) -> None:
    script = """
source <(_SPECTRUM_FAST_COMPLETE=source_bash spectrum-fast)
complete -p spectrum-fast > /dev/null
for line in "spectrum-fast s" "spectrum-fast select --gr" "spectrum-fast scans " "spectrum-fast scan --method b"; do
    read -ra COMP_WORDS <<< "$line"
    [[ "$line" == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=()
    _spectrum_fast_completion spectrum-fast
    echo "${COMPREPLY[*]}"
done
"""
    commands, options, subcommands, values = ask(shell_environment, "bash", "-c", script).splitlines()
    assert {"scan", "select", "scans"} <= set(commands.split())
    assert options == "--grouping"
    assert {"list", "get", "add"} <= set(subcommands.split())
    assert values == "band"


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef spectrum-fast"), ("fish", "complete --command")])
def test_other_shells_get_a_script_and_answers(shell_environment: dict[str, str], shell: str, mark: str) -> None:
    script = ask(shell_environment, "spectrum-fast", _SPECTRUM_FAST_COMPLETE=f"source_{shell}")
    assert mark in script
    answers = ask(
        shell_environment,
        "spectrum-fast",
        _SPECTRUM_FAST_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="spectrum-fast sc",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "scans" in answers
    if shutil.which(shell):
        ask(shell_environment, shell, "-n", "-c", script)


def test_installing_asks_nothing(shell_environment: dict[str, str], tmp_path: Path) -> None:
    said = ask(shell_environment, "bash", "-c", "spectrum-fast --install-completion; true")
    assert "completion installed in" in said
    assert (tmp_path / ".bash_completions" / "spectrum-fast.sh").is_file()
