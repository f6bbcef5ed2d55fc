"""The command line in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from spectrum_fast.use.cli import main


@pytest.fixture
def run_inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``spectrum-fast`` with these arguments."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["spectrum-fast", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return subprocess.CompletedProcess(sys.argv, leaving.value.code, captured.out, captured.err)

    return call
