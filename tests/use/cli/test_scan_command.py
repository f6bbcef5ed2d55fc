"""``spectrum-fast scan``: what goes where, exit codes, and failures that come before the work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spectrum_fast import load_scan
from spectrum_fast.use.cli import consoles
from spectrum_fast.use.report.progress import format_bytes

from support.processes import script


def single_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_table_on_stdout_words_on_stderr(run, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "scan.json"
    done = run("scan", tiny, "--out", target)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:6] == [
        f"{tiny.name}: 57 modules scored, criterion spectrum, top 25 % of each type",
        "",
        "type                 taken   shape    best  median   worst",
        "──────────────────────────────────────────────────────────",
        "model.embed_tokens  always  256x64   2.023   2.023   2.023",
        done.stdout.splitlines()[5],
    ]
    assert done.stdout.splitlines()[5].startswith("mlp.down_proj          2/8  64x176")
    assert "note: lm_head is tied to model.embed_tokens and is scored once" in done.stdout
    assert "not scored: 17 x 1-D (norm or bias)" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    progress, wrote, next_ = done.stderr.splitlines()
    assert progress.startswith("scanned 57 modules, 770 kB in ")
    assert wrote == f"wrote {target}"
    assert next_ == f"next: spectrum-fast select {target} --for axolotl -o unfrozen.yaml"
    assert "\x1b" not in done.stdout + done.stderr
    assert len(load_scan(target).modules) == 57


def test_quiet_says_nothing(inside, tiny: Path, tmp_path: Path) -> None:
    done = inside("scan", tiny, "--include", "*.v_proj", "--out", tmp_path / "scan.json", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_out_the_result_is_kept_and_no_other_scan_is_lost(inside, tiny: Path, tmp_path: Path) -> None:
    """The same scan again takes its own place; one of other modules, rule or weights takes the next free name."""
    some = ("--include", "*.v_proj")
    first = inside("scan", tiny, *some)
    assert f"wrote {tiny.name}.scan.json\nnext: spectrum-fast select {tiny.name}.scan.json" in first.stderr
    kept = (Path(f"{tiny.name}.scan.json")).read_bytes()
    assert f"wrote {tiny.name}.scan.json" in inside("scan", tiny, *some).stderr
    assert f"wrote {tiny.name}.2.scan.json" in inside("scan", tiny, *some, "--criterion", "mp").stderr
    assert f"wrote {tiny.name}.3.scan.json" in inside("scan", tiny, "--include", "*.k_proj").stderr
    other = tmp_path / "elsewhere" / tiny.name
    shutil.copytree(tiny, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, other / "model.safetensors")
    assert f"wrote {tiny.name}.4.scan.json" in inside("scan", other, *some).stderr
    Path(f"{tiny.name}.5.scan.json").write_text("no scan")
    assert f"wrote {tiny.name}.6.scan.json" in inside("scan", other, *some, "--method", "svd").stderr
    assert Path(f"{tiny.name}.scan.json").read_bytes() == kept
    assert load_scan(f"{tiny.name}.2.scan.json").criterion == "mp"
    assert not list(Path().glob(".*journal"))


def test_an_interrupted_scan_without_out_has_its_journal(inside, tiny: Path, monkeypatch) -> None:
    def stop(self, step) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("spectrum_fast.use.report.progress.ScanMeter.__call__", stop)
        done = inside("scan", tiny)
    assert (done.returncode, done.stdout) == (130, "")
    journal = f".{tiny.name}.scan.json.journal"
    assert f"3 finished modules are safe in {Path(journal).resolve()}; the same command goes on" in done.stderr
    again = inside("scan", tiny)
    assert "going on where an interrupted scan was: 3 of 57 modules" in again.stderr
    assert not Path(journal).exists()


def test_a_dry_run_scores_nothing_and_says_what_would_be(inside, tiny: Path, broken: Path) -> None:
    done = inside("scan", broken, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    size = load_file(tiny / "model.safetensors")["model.layers.0.mlp.down_proj.weight"].nbytes
    assert lines[0].startswith(f"{broken.name}: 56 matrices to score, ")  # of 57, one is refused
    (row,) = (line.split() for line in lines if line.startswith("mlp.down_proj"))
    assert row[:4] == ["mlp.down_proj", "8", "64x176", "BF16"]
    assert " ".join(row[4:]) == format_bytes(8 * size)
    assert "warning: will have no score: tensor 'model.layers.5.mlp.up_proj.weight' in" in " ".join(lines)
    assert "not scored: 17 x 1-D (norm or bias)" in lines
    assert re.search(
        r"^time: about \d+ s on this machine as it is now, bound by (scoring|reading) \(one of each", done.stdout, re.M
    )
    assert max(map(len, lines)) <= 80
    assert not list(Path().iterdir())


def test_a_wide_terminal_names_the_best_modules(inside, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles.out, "width", 140)
    done = inside("scan", tiny, "--include", "*.v_proj")
    header = done.stdout.splitlines()[2]
    assert header.endswith("best module")
    assert ".self_attn.v_proj" in done.stdout


def test_failed_tensors_are_named_and_the_rest_is_kept(inside, broken: Path, tmp_path: Path) -> None:
    target = tmp_path / "scan.json"
    done = inside("scan", broken, "--out", target)
    assert done.returncode == 1
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert failed[0].startswith("failed: model.layers.3.mlp.up_proj.weight in model.safetensors: holds NaN or infinity")
    assert "'model.layers.5.mlp.up_proj.weight'" in failed[1]
    assert "found 'I8'" in failed[1]
    assert "FAILED, no score: 2 tensors: model.layers.3.mlp.up_proj," in done.stdout
    scan = load_scan(target)
    assert (len(scan.modules), len(scan.failures)) == (55, 2)

    refused = inside("select", target)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "incomplete: 2 tensors have no score" in single_line(refused.stderr)
    allowed = inside("select", target, "--allow-incomplete", "--format", "names")
    assert allowed.returncode == 0
    assert "model.layers.3.mlp.up_proj" not in allowed.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-percent", "0"], "top percent: expected a number in (0, 100], found 0.0"),
        (["--top-percent", "nan"], "top percent"),
        (["--method", "magic"], "unknown method 'magic': expected one of auto, band, svd"),
        (["--precision", "half"], "unknown precision 'half'"),
        (["--criterion", "aic"], "unknown criterion 'aic': expected one of auto, spectrum, mp"),
        (["--device", "cuda"], "use --device cpu"),
        (["--threads", "0"], "threads: expected at least 1"),
        (["--include", "nope"], "include: pattern 'nope' matches no module"),
        (["--out", "{tmp}"], "found a folder"),
        (["--out", "{tmp}/no/scan.json"], "there is no folder"),
        (["--out", "{model}/model.safetensors"], "the name of a checkpoint's file"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    inside, tiny: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = state(tiny / "model.safetensors")
    done = inside("scan", tiny, *(text.format(tmp=tmp_path, model=tiny) for text in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    line = single_line(done.stderr)
    assert line.startswith("error: ")
    assert message in line
    assert state(tiny / "model.safetensors") == before


def state(path: Path) -> tuple[int, ...]:
    """What a write would change; the time of the last read is left out."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(run, tiny: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run("scan", tiny, "--out", tmp_path / "scan.json")
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    assert "without that right" in single_line(done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_scan_that_cannot_be_written_is_saved_elsewhere(
    inside, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = inside("scan", tiny, "--include", "*.v_proj", "--out", "/dev/full")
    assert done.returncode == 2
    assert "self_attn.v_proj" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: /dev/full: cannot be written")
    (rescued,) = tmp_path.glob("spectrum-fast-scan-*.json")
    assert last.endswith(f"the scan was saved as {rescued} instead")
    assert len(load_scan(rescued).modules) == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/at/all", "no such folder or file"),
        ("empty", "empty"),
        ("text.safetensors", "text.safetensors"),
    ],
)
def test_a_bad_path_is_one_clear_line(inside, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    done = inside("scan", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in single_line(done.stderr)
    assert str(tmp_path) in done.stderr


def test_a_file_replaced_during_a_scan_leaves_no_output(run, inside, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    target = tmp_path / "scan.json"
    target.write_text("the scan of yesterday")
    one_by_one = "--method", "svd"  # what goes together is read before any of it is scored
    command = [sys.executable, script("scan_of_a_touched_file"), "scan", str(model), "--out", str(target), *one_by_one]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "replaced while being read" in single_line(done.stderr)
    assert target.read_text() == "the scan of yesterday"
    journal = tmp_path / ".scan.json.journal"
    assert sorted(tmp_path.iterdir()) == [journal, model, target]

    kept = journal.read_bytes()
    refused = inside("scan", model, "--out", target, *one_by_one)
    assert (refused.returncode, refused.stdout) == (2, "")
    line = single_line(refused.stderr)
    assert f"{journal}: this journal of an interrupted scan belongs to another one: files model.safetensors ch" in line
    assert re.search(r"throw its \d finished modules away with --restart", line)
    assert journal.read_bytes() == kept
    assert inside("scan", model, "--out", target, "--restart", *one_by_one).returncode == 0
    assert sorted(tmp_path.iterdir()) == [model, target]


def test_control_c_leaves_no_scan_file_and_no_traceback(tmp_path: Path) -> None:
    from bench.make_checkpoint import write_checkpoint

    model = write_checkpoint(tmp_path / "model", like="llama-3-8b", layers=4, scale=8, embeddings=False).path
    command = ["scan", str(model), "--method", "svd", "--threads", "1", "--out", str(tmp_path / "scan.json")]
    process = subprocess.Popen(
        [sys.executable, "-m", "spectrum_fast", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until_scanning(process.pid, model / "model.safetensors")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    kept = rf"\d+ finished modules are safe in {tmp_path}/.scan.json.journal; the same command goes on from there"
    assert re.fullmatch(rf"interrupted: (no file is left half-written|{kept})", single_line(stderr))
    assert {path.name for path in tmp_path.iterdir()} <= {"model", ".scan.json.journal"}


def wait_until_scanning(pid: int, file: Path, timeout_seconds: float = 60) -> None:
    """Until the process has opened the checkpoint's file."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if link.readlink() == file:
                    time.sleep(0.1)  # past the header and the look for ties
                    return
            except OSError:
                continue
        time.sleep(0.005)
    pytest.fail("the scan did not begin")
