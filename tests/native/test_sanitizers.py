"""The compiled kernels under AddressSanitizer and UBSan, without Python; ``make sanitize`` does more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sanitize.sh")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_no_kernel_leaves_its_operands() -> None:
    done = subprocess.run([str(SCRIPT), "address", "5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "portable and portable" in done.stdout
