"""Every case that is meant for Triton's interpreter, in a process of their own: it is chosen when triton is imported.

One process for all: to import torch and triton takes longer than most of the cases.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.interpreter import run_interpreted

pytest.importorskip("triton")

FILES = [
    "test_contract",
    "test_product",
    "test_tensor_core_sums",
    "test_triton_band",
    "test_triton_decode",
    "test_triton_extent",
    "test_triton_gram",
    "test_triton_sturm",
]


def test_in_the_interpreter() -> None:
    run_interpreted(*(str(Path(__file__).with_name(f"{name}.py")) for name in FILES))


def test_no_file_is_forgotten() -> None:
    texts = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_triton_*.py")}
    using = {name for name, text in texts.items() if re.search(r"^@on_(both|all)$", text, re.MULTILINE)}
    assert using <= set(FILES)
