"""Every code block of the documentation runs, and every message that troubleshooting quotes is in the code."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast.use.cli import main

from support.blocks import DATA, PROSE, PYTHON, SHELL, Block, commands_only, indented_code, read_blocks
from support.tiny_models import write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MOST_NOT_RUN = 40
"""Blocks that may be marked as not run, in all pages together; raise it with care."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that pages call ``my-model``: a Llama of 4 layers, tied."""
    folder = write_checkpoint(tmp_path_factory.mktemp("docs"), like="tiny", layers=4).path
    write_tokenizer(folder)
    return folder


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with ``my-model`` in it, to run a page in."""
    shutil.copytree(checkpoint, tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def pages_with(mark: str) -> list[Path]:
    return [page for page in PAGES if any(block.mark == mark and is_code(block) for block in read_blocks(page))]


def is_code(block: Block) -> bool:
    return block.language in (*PYTHON, *SHELL, *DATA)


@pytest.mark.parametrize("page", pages_with(""), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(page: Path, place: Path) -> None:
    run_page([block for block in read_blocks(page) if block.mark == ""])


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"), ids=lambda page: page.stem)
def test_the_long_blocks_of_a_page_run_too(page: Path, place: Path) -> None:
    run_page([block for block in read_blocks(page) if block.mark in ("", "slow")])


def run_page(blocks: list[Block]) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        where = f"{block.page}:{block.line}"
        if block.language in PYTHON:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * block.line + block.code, block.page, "exec"), names)  # noqa: S102
        elif block.language in SHELL:
            run_shell(block.code, where)
        elif block.language == "json":
            json.loads(block.code)
        elif block.language == "yaml":
            import yaml

            yaml.safe_load(block.code)


def run_shell(code: str, where: str) -> None:
    """Plain commands in this process, which saves the seconds of an import; all else in bash."""
    commands = commands_only(code)
    if commands is None:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{where}:\n{done.stdout}\n{done.stderr}"
        return
    for command in commands:
        if command.startswith("mkdir -p "):
            Path(command.removeprefix("mkdir -p ")).mkdir(parents=True, exist_ok=True)
            continue
        output = io.StringIO()
        arguments, sys.argv = sys.argv, shlex.split(command)
        try:
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
                pytest.raises(SystemExit) as left,
            ):
                main()
        finally:
            sys.argv = arguments
        assert left.value.code in (0, None), f"{where}: {command}\n{output.getvalue()}"


def test_every_block_is_run_or_says_why_not() -> None:
    blocks = [block for page in PAGES for block in read_blocks(page)]
    unknown = [f"{b.page}:{b.line}: {b.language}" for b in blocks if not is_code(b) and b.language not in PROSE]
    assert not unknown, "fence these as python, sh, yaml, json or text"
    skipped = [f"{block.page}:{block.line}: {block.reason}" for block in blocks if block.mark == "not run"]
    assert all(len(block.reason) > 10 for block in blocks if block.mark), "say why"
    assert len(skipped) <= MOST_NOT_RUN, skipped
    assert sum(is_code(block) and not block.mark for block in blocks) >= 15


def test_no_code_hides_in_an_indented_block() -> None:
    hidden = [f"{page.name}:{line}" for page in PAGES for line in indented_code(page)]
    assert not hidden, "fence these, so that they run"


def messages_of_the_code() -> list[str]:
    """Every text in the package's code, what is filled in as an ellipsis."""

    def text_of(node: ast.JoinedStr) -> str:
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # pyright: ignore[reportReturnType]

    found = []
    for path in sorted((ROOT / "spectrum_fast").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(text_of(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_in_troubleshooting_exists() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", text, flags=re.MULTILINE)
    assert len(quoted) >= 20
    known = messages_of_the_code()
    missing = [message for message in quoted if not any(message in other for other in known)]
    assert not missing, "these messages are not in the code any more"


def test_the_check_of_messages_can_fail() -> None:
    known = messages_of_the_code()
    assert any("holds NaN or infinity in … of … entries" in message for message in known)
    assert not any("holds NaN or infinity in … of the entries" in message for message in known)
