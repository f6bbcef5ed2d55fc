"""The table of docs/formats.md, made from the registered formats: ``python -m tools.docs.formats_table`` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from spectrum_fast.read.formats.registry import FORMATS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- formats, made by tools/docs/formats_table.py -->", "<!-- end of the formats -->"

_FIRST = (
    "format | recognised by | example | decoded | tested against (in `tests/read/formats/`)",
    "---|---|---|---|---",
    "F64, F32, F16, BF16 | dtype | most checkpoints | yes | float64 SVD",
)
_LAST = (
    "`qweight` with another or no `quant_method` | | | refused: AWQ and GPTQ give their tensors the same names "
    "| `test_planning.py`",
    "any other dtype | dtype | | refused | `tests/read/checkpoint/test_header.py`",
)


def formats_table() -> str:
    """The table in Markdown, between its two marks."""
    formats = [form.row for form in sorted(FORMATS, key=lambda form: form.plan is None) if form.row]
    return "\n".join([BEGIN, "", *(f"| {row} |" for row in (*_FIRST, *formats, *_LAST)), "", END])


def with_table(page: str) -> str:
    """A page with the table between its marks made anew."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: formats_table(), page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
