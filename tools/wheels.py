"""Build and check the wheels of a release: ``python -m tools.wheels [TARGET...] [--out dist]`` (``make wheels``: all).

A target is a Python and a machine: ``cp310-x86_64``, ``cp311-x86_64``, ``cp312-x86_64`` (stable ABI: every newer Python
too), the same with ``aarch64``, and ``pure``: the package without its kernels, for every other machine. Needed: those
Pythons with their headers (``python3.10`` and so on, on the path or under pyenv), GCC, and for the other machine its
cross compiler (Debian: ``g++-aarch64-linux-gnu``).

All are built from the sdist, in one folder a machine, so that the kernels, which know nothing of Python, are compiled
once. They run on every Linux since glibc 2.28: the C++ library is linked in, and the few functions of the mathematical
library that have newer versions are bound to their first ones. ``libgomp`` is not carried along: torch, which is
imported first, brings it under the same name on both machines, so that the process has one OpenMP runtime.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools.install import PURE

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "wheels"
PYTHONS = ("3.10", "3.11", "3.12")
MACHINES = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}
"""Machine -> the version of the first symbols of its C library."""
ANY = "any"
"""The machine of the wheel that holds nothing compiled."""
GLIBC = (2, 28)
RENEWED = ["exp", "exp2", "fmod", "fmodf", "hypot", "hypotf", "log", "log2", "pow"]
"""Functions whose default version is newer than ``GLIBC``; their first versions differ in ``errno`` alone."""
LIBRARIES = {"libc.so.6", "libgcc_s.so.1", "libgomp.so.1", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
TOOLS = ("scikit-build-core", "nanobind", "abi3audit", "wheel", "tomli", "exceptiongroup")  # the last two for 3.10


@dataclass(frozen=True)
class Target:
    """One wheel."""

    python: str
    machine: str

    @property
    def name(self) -> str:
        """As on the command line, and as wheels are called."""
        return "pure" if self.pure else f"cp{self.python.replace('.', '')}-{self.machine}"

    @property
    def pure(self) -> bool:
        """Whether it goes without the extension."""
        return self.machine == ANY

    @property
    def stable(self) -> bool:
        """Whether it is for the stable ABI."""
        return self.python == PYTHONS[-1] and not self.pure

    @property
    def extension(self) -> list[str]:
        """What the wheel holds that is compiled."""
        suffix = "abi3" if self.stable else f"cpython-{self.python.replace('.', '')}-{self.machine}-linux-gnu"
        return [] if self.pure else [f"spectrum_fast/_native.{suffix}.so"]

    def compiler(self, language: str = "g++") -> str:
        """GCC for its machine."""
        name = language if self.machine == platform.machine() else f"{self.machine}-linux-gnu-{language}"
        if shutil.which(name) is None:
            raise SystemExit(f"wheels: {self.name} needs {name} (Debian: g++-{self.machine}-linux-gnu), found none")
        return name


TARGETS = {target.name: target for machine in MACHINES for target in (Target(python, machine) for python in PYTHONS)}
TARGETS["pure"] = Target(PYTHONS[-1], ANY)


def main(arguments: list[str]) -> int:
    """Build, look inside, and try what this machine can run."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.targets if name not in TARGETS]
    require(not unknown, f"expected targets of {', '.join(TARGETS)}, found {', '.join(unknown)}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    for target in chosen:
        find_python(target.python)
        if not target.pure:
            target.compiler()
    sdist = build_sdist(options.out)
    print(f"{sdist.name}: {check_sdist(sdist)} files")
    for target in chosen:
        wheel = build(target, sdist, options.out)
        print(f"{wheel.name}: {check_wheel(wheel, target)}")
    return 0


def find_python(version: str) -> str:
    """The newest Python of a version, on the path or under pyenv; its headers serve other machines too."""
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in [*map(str, installed), shutil.which(f"python{version}")]:
        if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
            return candidate
    raise SystemExit(f"expected python{version} with its headers on the path or under pyenv, found none")


def build_sdist(out: Path) -> Path:
    """The sdist, beside a note of the commit that it is of; older files of the same version go."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("spectrum_fast-*"):
        stale.unlink()
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(ROOT)])
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (out / "commit").write_text(described.stdout, encoding="utf-8")
    (sdist,) = out.glob("*.tar.gz")
    return sdist


def build(target: Target, sdist: Path, out: Path) -> Path:
    """One wheel, under the name of the oldest C library that it has been linked for."""
    tools, source = WORK / "tools", WORK / f"source-{target.machine}"
    if not tools.exists():
        run([sys.executable, "-m", "pip", "install", "-c", "constraints.txt", "--target", str(tools), *TOOLS])
    unpack(sdist, source)
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    settings = PURE if target.pure else settings_of_compilation(target, environment)
    with tempfile.TemporaryDirectory() as folder:
        script = f"from scikit_build_core.build import build_wheel; build_wheel({folder!r}, {settings!r})"
        run([find_python(target.python), "-c", script], environment, source)
        (raw,) = Path(folder).glob("*.whl")
        if not target.pure:
            tag = "manylinux_{}_{}_{}".format(*GLIBC, target.machine)
            run([sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, str(raw)], environment)
        (named,) = Path(folder).glob("*.whl")
        return Path(shutil.copy(named, out))


def settings_of_compilation(target: Target, environment: dict[str, str]) -> dict[str, str]:
    """Settings of the build backend for a wheel with the extension; ``environment`` gets what compilers read."""
    cache = WORK / target.machine
    if cache.exists():  # what was compiled is kept, what was found out about another Python is not
        (cache / "CMakeCache.txt").unlink(missing_ok=True)
        for found in cache.glob("CMakeFiles/[0-9]*"):
            shutil.rmtree(found)
    settings = {"build-dir": str(cache)}
    environment |= {"CXX": target.compiler(), "LDFLAGS": link_flags(target)}
    if target.machine != platform.machine():
        settings |= {"cmake.define.CMAKE_SYSTEM_NAME": "Linux", "cmake.define.CMAKE_SYSTEM_PROCESSOR": target.machine}
        environment |= {
            "_PYTHON_HOST_PLATFORM": f"linux-{target.machine}",
            "SETUPTOOLS_EXT_SUFFIX": target.extension[0].removeprefix("spectrum_fast/_native"),
        }
    return settings


def unpack(sdist: Path, source: Path) -> None:
    """The sources, with their own times, so that an unchanged file is not compiled again."""
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            member.name = member.name.partition("/")[2]
            if member.name:
                archive.extract(member, source, filter="data")
    for path in source.rglob("*"):  # an sdist has one time for all its files: take those of the tree
        original = ROOT / path.relative_to(source)
        if path.is_file() and original.is_file() and original.read_bytes() == path.read_bytes():
            os.utime(path, ns=(original.stat().st_atime_ns, original.stat().st_mtime_ns))


def link_flags(target: Target) -> str:
    """Flags of the linker that keep newer versions of C and C++ libraries out of the extension.

    A library with the name and the first version of each renewed function is linked before the real one. The flag that
    glibc 2.32 has for programs of one thread is defined here, as not set.
    """
    folder = WORK / f"glibc-{target.machine}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "math.c").write_text("".join(f"void {name}(void) {{}}\n" for name in RENEWED), encoding="utf-8")
    (folder / "math.map").write_text(f"{MACHINES[target.machine]} {{ global: *; }};\n", encoding="utf-8")
    (folder / "threads.c").write_text(
        '__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;\n', encoding="utf-8"
    )
    gcc = [target.compiler("gcc"), "-fPIC", "-fno-builtin"]
    version = ["-nostdlib", "-Wl,-soname,libm.so.6", f"-Wl,--version-script={folder}/math.map"]
    run([*gcc, "-shared", *version, "-o", f"{folder}/libm.so", f"{folder}/math.c"])
    run([*gcc, "-c", "-o", f"{folder}/threads.o", f"{folder}/threads.c"])
    first = f"-Wl,--push-state,--no-as-needed,{folder}/libm.so,--pop-state"
    return f"-static-libstdc++ -Wl,--exclude-libs,ALL {folder}/threads.o {first}"


def check_sdist(path: Path) -> int:
    """What can be built from it is in it, and nothing that was made here."""
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for wanted in ("LICENSE", "CMakeLists.txt", "kernels/module.cpp", "spectrum_fast/py.typed", "pyproject.toml"):
        require(wanted in names, f"{wanted} is not in {path.name}")
    made = [name for name in names if name.endswith((".so", ".pyc")) or name.startswith(("build/", "out/", ".venv/"))]
    require(not made, f"{path.name} holds {made[:5]}")
    return len(names)


def check_wheel(path: Path, target: Target) -> str:
    """The package, its licence and (unless pure) one extension that needs nothing newer than its name says.

    Returns:
        what was found, for people.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        require(tops == {"spectrum_fast"}, f"{path.name} holds {sorted(tops)}")
        compiled = [name for name in names if ".so" in Path(name).suffixes]
        require(compiled == target.extension, f"{path.name} holds {compiled}, expected {target.extension}")
        require("spectrum_fast/py.typed" in names, "py.typed is missing")
        require(any(name.endswith("licenses/LICENSE") for name in names), "the licence is missing")
        require(not [name for name in names if "test" in name.lower()], "tests are in the wheel")
        found = [f"{len(names)} files", f"{path.stat().st_size / 1e6:.1f} MB"]
        for extension in compiled:
            newest, libraries = check_extension(Path(archive.extract(extension, folder)), target.machine)
            found += [f"needs glibc {'.'.join(map(str, newest))}", *libraries]
    if target.stable:
        run([sys.executable, "-m", "abi3audit", "--strict", str(path)], {**os.environ, "PYTHONPATH": f"{WORK}/tools"})
        found.append("stable ABI of Python 3.12 by abi3audit")
    return ", ".join(found)


def check_extension(path: Path, machine: str) -> tuple[tuple[int, ...], list[str]]:
    """The newest version of glibc that an extension asks for, and the libraries that it names."""
    text = subprocess.run(["readelf", "-hdVW", str(path)], capture_output=True, text=True, check=True).stdout
    require({"x86_64": "X86-64", "aarch64": "AArch64"}[machine] in text, f"{path.name} is not for {machine}")
    libraries = sorted(re.findall(r"\(NEEDED\).*\[(.*)\]", text))
    strangers = set(libraries) - LIBRARIES
    require(not strangers, f"{path.name} needs {sorted(strangers)}, which not every Linux has")
    versions = [tuple(map(int, found.split("."))) for found in re.findall(r"Name: GLIBC_([0-9.]+)", text)]
    require(bool(versions), f"{path.name} names no version of glibc")
    require(max(versions) <= GLIBC, f"{path.name} needs glibc {max(versions)}, expected {GLIBC} at most")
    return max(versions), libraries


def require(good: bool, complaint: str) -> None:
    """End with one line of words unless ``good``."""
    if not good:
        raise SystemExit(f"wheels: {complaint}")


def run(command: list[str], environment: dict[str, str] | None = None, folder: Path = ROOT) -> None:
    """Run a command quietly, ending with the last of what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"wheels: {' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
