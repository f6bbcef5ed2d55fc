"""The compiled kernels without Python: under AddressSanitizer and UBSan (``make sanitize`` does more), and for ARM."""

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


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("cmake") or not shutil.which("aarch64-linux-gnu-g++") or not shutil.which("qemu-aarch64"),
    reason="needs cmake, g++-aarch64-linux-gnu and qemu-user",
)
def test_kernels_for_arm_agree_with_plain_loops_under_emulation() -> None:
    done = subprocess.run([str(SCRIPT.with_name("arm.sh")), "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("portable", "neon", "neon-bf16"):
        assert f"3 rounds of every kernel, {kernel} and portable" in done.stdout
