"""``spectrum-fast select``, as far as other tests of the commands do not use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from spectrum_fast.choose.selection.readers import READERS


def test_a_file_for_a_trainer_and_what_to_do_with_it(inside, scanned: Path, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    target = tmp_path / "unfrozen.yaml"
    done = inside("select", scanned, "--for", "axolotl", "--top-percent", 50, "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert "axolotl trains " in done.stderr
    assert re.search(
        r"trains [\d,]+ of [\d,]+ parameters .*, [\d,]+ of them \(\d+ %\) in embeddings and head", done.stderr
    )
    assert f"add the lines of {target}" in done.stderr
    assert re.search(r"takes about \d+\.\d MiB on one GPU, \d+\.\d MiB on each of two", done.stderr)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(scanned.read_text().replace(str(tiny), "no/such"))
    assert "takes about" not in inside("select", elsewhere, "--for", "axolotl", "--top-percent", 50).stderr
    entries = yaml.safe_load(target.read_text())["unfrozen_parameters"]
    assert entries[0] == "model.embed_tokens"  # the tied head has no parameter of its own
    printed = inside("select", scanned, "--for", "axolotl", "--top-percent", 50)
    assert printed.stdout == target.read_text()


def test_a_budget_in_place_of_a_percent(inside, scanned: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    target = tmp_path / "file"
    done = inside("select", scanned, "--for", "trl", "--budget", "0.05B", "-o", target)
    assert "budget 0.05B: 100 % of each group is the largest share within it" in " ".join(done.stderr.split())
    assert inside("select", scanned, "--for", "trl", "--top-percent", 100).stdout == target.read_text()
    for arguments, words in (
        (("--budget", "8G"), "budget: expected parameters (900M, 2.5B) or memory (8GiB), found '8G'"),
        (("--budget", "1B", "--top-percent", 50), "leave the percentage out"),
        (("--budget", "10"), "count: --always none leaves them"),
        (("--budget", "1MiB", "--gpus", 2), "MiB a GPU"),
    ):
        done = inside("select", scanned, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in " ".join(done.stderr.split())


def test_what_embeddings_and_head_take_is_told(inside, scanned: Path, tmp_path: Path) -> None:
    done = inside("select", scanned, "--top-percent", 25, "-o", tmp_path / "selection.json")
    found = re.search(r"trains ([\d,]+) parameters, ([\d,]+) of them \((\d+) %\) in embeddings and head", done.stderr)
    assert found is not None
    trained, ends, percent = (int(text.replace(",", "")) for text in found.groups())
    assert percent == round(100 * ends / trained)
    assert ("--always none leaves them frozen" in " ".join(done.stderr.split())) == (2 * ends > trained)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_has_a_command(inside, scanned: Path, tiny: Path, tmp_path: Path, reader: str) -> None:
    pytest.importorskip("transformers")
    target = tmp_path / "file"
    done = inside("select", scanned, "--for", reader, "--model", tiny, "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    assert target.read_text()


def test_a_share_that_takes_no_module_is_said(inside, scanned: Path) -> None:
    done = inside("select", scanned, "--for", "names", "--top-percent", 1)
    assert "no module is selected beside those trained always" in " ".join(done.stderr.split())


def test_nothing_is_written_where_the_reader_or_the_model_do_not_fit(inside, scanned: Path, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    for arguments, words in (
        (("--for", "unsloth"), "unknown reader 'unsloth': expected one of axolotl, peft"),
        (("--for", "axolotl", "--format", "json"), "--for decides the format"),
        (("--model", "m"), "name a reader with --for"),
        (("--for", "axolotl", "--model", tmp_path), "safetensors"),
    ):
        done = inside("select", scanned, "-o", target, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in " ".join(done.stderr.split())
        assert target.read_text() == "old"
