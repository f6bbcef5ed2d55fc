"""The locks hold what people pinned and what the project asks for, each with hashes; pip refuses any other file."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.install import UNRESOLVED

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in PIN.findall(text)}


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    return pins("".join(path.read_text() for path in LOCKS))


def test_every_package_is_locked_once_with_hashes_and_no_address() -> None:
    assert [path.stem for path in LOCKS] == ["core", "cuda", "dev", "torch"]
    seen: set[str] = set()
    for path in LOCKS:
        text = path.read_text()
        assert "://" not in text
        assert "@" not in text
        blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
        names = pins(text).keys()
        assert len(blocks) == len(names)
        assert seen & names <= {"triton"}  # torch's CUDA build needs it, and so do tests on a machine without one
        seen |= names
        for block in blocks:
            hashes = re.findall(r"--hash=sha256:([0-9a-f]+)(?: \\)?$", block, re.MULTILINE)
            assert hashes, block
            assert len(set(hashes)) == len(hashes)
            assert all(len(digest) == 64 for digest in hashes)
            assert len(hashes) == block.count("\n") - 1, block


def test_locks_follow_constraints_and_satisfy_the_project(locked: dict[str, str]) -> None:
    chosen = pins((ROOT / "constraints.txt").read_text())
    assert {name: version for name, version in chosen.items() if name in locked} == {
        name: locked[name] for name in chosen if name in locked
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for line in [*wanted, *(line for extra in extras for line in extra)]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line


def test_what_only_cuda_machines_need_is_apart(locked: dict[str, str]) -> None:
    """A CPU-only machine downloads none of it; what is in this environment otherwise is what was locked."""
    for path in LOCKS:
        if path.stem not in ("cuda", "torch"):
            assert not [name for name in pins(path.read_text()) if name.startswith(("nvidia-", "cuda-", "torch"))]
    assert "nvidia-cublas" in locked


def test_what_locked_packages_need_is_locked_for_this_platform() -> None:
    """Pip is told not to resolve; so nothing may be missing, under the markers of the machine that runs this."""
    here: set[str] = set()
    for path in LOCKS:
        for name, _, marker in re.findall(
            r"^([A-Za-z0-9._-]+)==(\S+)(?: ; ([^\\\n]+))?", path.read_text(), re.MULTILINE
        ):
            if not marker or Marker(marker).evaluate():
                here.add(canonicalize_name(name))
    missing = {}
    for name in here - {canonicalize_name(name) for names in UNRESOLVED.values() for name in names}:
        try:
            wanted = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that this machine has not
        for line in wanted:
            requirement = Requirement(line)
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and canonicalize_name(requirement.name) not in here:
                missing.setdefault(name, []).append(line)
    assert not missing


def test_a_file_that_is_not_the_locked_one_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "six-1.17.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("six.py", "stolen = True\n")
        archive.writestr("six-1.17.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n")
        archive.writestr("six-1.17.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("six-1.17.0.dist-info/RECORD", "")
    text = (ROOT / "locks" / "dev.txt").read_text()
    lock = tmp_path / "lock.txt"
    lock.write_text(re.search(r"^six==(?:.*\\\n)*.*\n", text, re.MULTILINE)[0])  # type: ignore[index]
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-index", "--dry-run"]
    done = subprocess.run(
        [*command, "--ignore-installed", "--find-links", str(tmp_path), "-r", str(lock)], capture_output=True, text=True
    )
    assert done.returncode
    assert "DO NOT MATCH THE HASHES" in done.stderr
