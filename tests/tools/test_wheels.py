"""Wheels are what their names say: the oldest C library, the stable ABI, no stranger among the libraries."""

from __future__ import annotations

import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tools import wheels

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("readelf") or MACHINE not in wheels.MACHINES,
    reason="needs GCC on Linux",
)


def shared_object(folder: Path, code: str, *flags: str) -> Path:
    """A small library of this C code."""
    source, built = folder / "code.c", folder / "code.so"
    source.write_text(code)
    subprocess.run(["gcc", "-shared", "-fPIC", "-fno-builtin", "-o", built, source, *flags], check=True)
    return built


def test_an_extension_that_needs_a_newer_glibc_is_refused(tmp_path: Path) -> None:
    newer = shared_object(tmp_path, "int gettid(void); int arc4random(void); int f(void) { return arc4random(); }")
    with pytest.raises(SystemExit, match=r"code.so needs glibc \(2, 36\), expected \(2, 28\) at most"):
        wheels.check_extension(newer, MACHINE)


def test_an_extension_with_a_library_of_its_own_is_refused(tmp_path: Path) -> None:
    stranger = shared_object(tmp_path, "int f(void) { return 0; }", "-Wl,--no-as-needed", "-lstdc++")
    with pytest.raises(SystemExit, match=r"needs \['libstdc\+\+.so.6'\], which not every Linux has"):
        wheels.check_extension(stranger, MACHINE)


def test_renewed_functions_are_bound_to_their_first_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags of a wheel, on a library that calls them all; without the flags this machine's newest are taken."""
    monkeypatch.setattr(wheels, "WORK", tmp_path)
    code = "".join(f"double {name}(); double f_{name}(void) {{ return {name}(); }}\n" for name in wheels.RENEWED)
    code += "extern char __libc_single_threaded; int g(void) { return __libc_single_threaded; }\n"
    target = wheels.Target("3.12", MACHINE)
    newest, libraries = wheels.check_extension(
        shared_object(tmp_path, code, *wheels.link_flags(target).split(), "-lm"), MACHINE
    )
    assert newest <= wheels.GLIBC
    assert set(libraries) <= {"libm.so.6", "libc.so.6"}
    with pytest.raises(SystemExit, match="needs glibc"):
        wheels.check_extension(shared_object(tmp_path, code, "-lm"), MACHINE)


def test_a_wheel_under_a_name_that_promises_the_stable_abi_must_have_it(tmp_path: Path) -> None:
    wheel = tmp_path / "spectrum_fast-0-cp312-abi3-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("spectrum_fast/_native.cpython-312-x86_64-linux-gnu.so", "")
    with pytest.raises(SystemExit, match=r"holds \[.spectrum_fast/_native\.cpython-312"):
        wheels.check_wheel(wheel, wheels.Target("3.12", MACHINE))


def test_targets() -> None:
    assert list(wheels.TARGETS)[:3] == ["cp310-x86_64", "cp311-x86_64", "cp312-x86_64"]
    assert [name for name, target in wheels.TARGETS.items() if target.stable] == ["cp312-x86_64", "cp312-aarch64"]
    with pytest.raises(SystemExit, match=r"expected python3\.99 with its headers on the path or under pyenv"):
        wheels.find_python("3.99")


def test_without_a_target_every_one_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[str] = []
    for name, replacement in {
        "find_python": str,
        "build_sdist": lambda out: out / "sdist",
        "check_sdist": lambda _: 0,
        "build": lambda target, _sdist, out: built.append(target.name) or out,
        "check_wheel": lambda _wheel, target: target.name,
    }.items():
        monkeypatch.setattr(wheels, name, replacement)
    monkeypatch.setattr(wheels.Target, "compiler", lambda _: "g++")
    assert wheels.main(["--out", str(tmp_path)]) == 0
    assert built == [*wheels.TARGETS]
    with pytest.raises(SystemExit, match=r"expected targets of cp310-x86_64, .*, pure, found cp399-any"):
        wheels.main(["cp399-any"])


@pytest.fixture
def can_build() -> None:
    """Skips where what the wheels are built with is not there."""
    pytest.importorskip("build")
    try:
        wheels.find_python("3.12")
    except SystemExit as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.usefixtures("can_build")
def test_the_wheel_without_kernels_holds_nothing_compiled(tmp_path: Path) -> None:
    """Built for every Python and machine, without a compiler; the one with a library in it is refused."""
    assert wheels.main(["pure", "--out", str(tmp_path)]) == 0
    wheel = tmp_path / f"spectrum_fast-{version()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("spectrum_fast/_native.abi3.so", "")
    with pytest.raises(SystemExit, match=r"_native\.abi3\.so'\], expected \[\]"):
        wheels.check_wheel(wheel, wheels.TARGETS["pure"])


@pytest.mark.slow
@pytest.mark.usefixtures("can_build")
def test_the_wheel_of_newer_pythons_is_built_from_the_sdist(tmp_path: Path) -> None:
    assert wheels.main([f"cp312-{MACHINE}", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"spectrum_fast-{version()}-cp312-abi3-manylinux_2_28_{MACHINE}.whl").exists()


def version() -> str:
    from spectrum_fast.version import __version__

    return __version__
