"""The journal of a scan over a network: gone on from while the files are the same, refused once they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.errors import JournalError
from spectrum_fast.scanning import ScanProgress
from spectrum_fast.scanning.journal import journal_path

from support.file_server import FileServer

pytest.importorskip("obstore")


class StopError(Exception):
    pass


def stop_at_three(step: ScanProgress) -> None:
    if step.done == 3:
        raise StopError


def test_a_remote_scan_goes_on_and_notices_a_changed_file(llama: Path, tmp_path: Path) -> None:
    name = "model.safetensors"
    out = tmp_path / "scan.json"
    files = {f"/{name}": (llama / name).read_bytes()}
    with FileServer(files) as server:
        source = f"{server.url}/{name}"
        with pytest.raises(StopError):
            sf.scan(source, out=out, progress=stop_at_three)
        kept = journal_path(out).read_bytes()
        tensors = load_file(llama / name)
        changed = "model.layers.1.mlp.up_proj.weight"
        save_file({**tensors, changed: tensors[changed] * 2}, tmp_path / name)  # the same header, other values
        server.objects[f"/{name}"] = (tmp_path / name).read_bytes()
        with pytest.raises(JournalError, match=r"tags model\.safetensors changed: was .*etag=.*, is .*etag="):
            sf.scan(source, out=out)
        assert journal_path(out).read_bytes() == kept
        server.objects[f"/{name}"] = (llama / name).read_bytes()
        scan = sf.scan(source, out=out)
        assert scan.run["resumed_modules"] == 3
        assert format_scan(scan) == format_scan(sf.scan(source))
