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
    assert "in embeddings and head (--always none leaves them frozen)" in done.stderr
    assert f"add the lines of {target}" in done.stderr
    assert re.search(r"takes about \d+\.\d MiB on one GPU, \d+\.\d MiB on each of two", done.stderr)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(scanned.read_text().replace(str(tiny), "no/such"))
    assert "takes about" not in inside("select", elsewhere, "--for", "axolotl", "--top-percent", 50).stderr
    entries = yaml.safe_load(target.read_text())["unfrozen_parameters"]
    assert entries[0] == "model.embed_tokens"  # the tied head has no parameter of its own
    printed = inside("select", scanned, "--for", "axolotl", "--top-percent", 50)
    assert printed.stdout == target.read_text()


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
