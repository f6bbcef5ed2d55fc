"""The same checkpoint is the same content: values that changed under the same header, size and times are noticed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError, JournalError
from spectrum_fast.read.checkpoint import TensorRef, open_checkpoint
from spectrum_fast.read.checkpoint.content import BLOCK_BYTES, BLOCKS, sample_content
from spectrum_fast.scanning import ScanProgress
from spectrum_fast.scanning.content import is_scan_of
from spectrum_fast.scanning.journal import journal_path

from support.file_server import FileServer

VICTIM = "model.layers.0.mlp.down_proj"


class StopError(Exception):
    pass


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Five matrices of 256 x 512 in one file, whose times are those of a reproducible archive."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder, 0)
    return folder


def write(folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{layer}.mlp.{kind}_proj.weight" for layer in (0, 1) for kind in ("down", "up")]
    save_file({name: torch.randn(256, 512, generator=generator) for name in names}, folder / "m.safetensors")
    normalise(folder / "m.safetensors")


def normalise(file: Path) -> None:
    os.utime(file, ns=(10**9, 10**9))


def ref_of(folder: Path, module: str) -> TensorRef:
    return next(ref for ref in open_checkpoint(folder).tensors if ref.name == f"{module}.weight")


def edit(folder: Path, module: str) -> None:
    """Change one number in place where no sampled block lies, and put the time back."""
    ref, before = ref_of(folder, module), open_checkpoint(folder).content
    for place in range(ref.begin, ref.begin + ref.nbytes, 1 << 13):
        with open(ref.file, "r+b") as file:
            file.seek(place)
            number = file.read(4)
            file.seek(place)
            file.write(torch.tensor([7.0]).numpy().tobytes())
            file.flush()
            normalise(folder / "m.safetensors")
            if open_checkpoint(folder).content == before:
                return
            file.seek(place)
            file.write(number)
    pytest.fail("every place was sampled")


def stop_after(count: int):
    def progress(step: ScanProgress) -> None:
        if step.done == count:
            raise StopError

    return progress


def interrupted(folder: Path, out: Path) -> bytes:
    with pytest.raises(StopError):
        sf.scan(folder, out=out, progress=stop_after(2))
    return journal_path(out).read_bytes()


def test_a_resume_over_other_values_under_the_same_header_and_times_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    kept = interrupted(model, out)
    before = os.stat(model / "m.safetensors")
    write(model, 1)
    after = os.stat(model / "m.safetensors")
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    with pytest.raises(JournalError, match=r'content was "\w{32}", is "\w{32}".*--restart'):
        sf.scan(model, out=out)
    assert journal_path(out).read_bytes() == kept


def test_one_number_edited_where_no_block_is_sampled_is_noticed_by_a_resume(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    interrupted(model, out)
    edit(model, VICTIM)
    with pytest.raises(JournalError, match=rf"{VICTIM} was scored from other values than the checkpoint holds now"):
        sf.scan(model, out=out)


def test_an_edit_of_what_was_not_scored_yet_is_no_mixture(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    interrupted(model, out)
    edit(model, "model.layers.1.mlp.up_proj")
    assert sf.scan(model, out=out).run["resumed_modules"] == 2
    sf.scan(model, out=tmp_path / "fresh.json")
    assert out.read_bytes() == (tmp_path / "fresh.json").read_bytes()


def test_a_copy_of_the_files_is_the_same_checkpoint(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    interrupted(model, out)
    shutil.copytree(model, tmp_path / "copy")  # with its times
    shutil.rmtree(model)
    (tmp_path / "copy").rename(model)
    assert sf.scan(model, out=out).run["resumed_modules"] == 2
    sf.scan(model, out=tmp_path / "fresh.json")
    assert out.read_bytes() == (tmp_path / "fresh.json").read_bytes()


@pytest.mark.parametrize("when", [1, 4])
def test_an_edit_during_a_scan_is_noticed_though_its_time_is_put_back(model: Path, tmp_path: Path, when: int) -> None:
    def progress(step: ScanProgress) -> None:
        if step.done == when:
            edit_blindly(model / "m.safetensors")

    with pytest.raises(CheckpointError, match=r"changed since|truncated or replaced"):
        sf.scan(model, out=tmp_path / "scan.json", progress=progress)
    assert not (tmp_path / "scan.json").exists()


def edit_blindly(path: Path) -> None:
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(status.st_size - 4000)
        file.write(bytes(64))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_scan_knows_its_weights(model: Path, tmp_path: Path) -> None:
    scan = sf.scan(model)
    copy = tmp_path / "elsewhere"
    shutil.copytree(model, copy)
    os.utime(copy / "m.safetensors")
    assert is_scan_of(scan, copy) is True
    assert is_scan_of(scan, open_checkpoint(copy), thorough=True) is True
    scan.save(tmp_path / "scan.json")
    assert is_scan_of(sf.load_scan(tmp_path / "scan.json"), copy, thorough=True) is True
    edit(copy, VICTIM)
    assert is_scan_of(scan, copy) is True  # no sampled block was hit
    assert is_scan_of(scan, copy, thorough=True) is False
    write(copy, 1)
    assert is_scan_of(scan, copy) is False
    save_file({"other.weight": torch.ones(3, 3)}, copy / "m.safetensors")
    assert is_scan_of(scan, copy) is False
    assert is_scan_of(sf.scan(torch.nn.Linear(8, 8)), copy) is None


def test_digests_are_of_the_bytes_however_they_are_read(model: Path) -> None:
    expected = {module.name: module.digest for module in sf.scan(model).modules}
    assert len(set(expected.values())) == 4
    assert all(digest is not None and len(digest) == 32 for digest in expected.values())
    for options in ({"direct_io": "auto"}, {"buffer_gib": 0.002}, {"threads": 1, "method": "svd"}):
        assert {module.name: module.digest for module in sf.scan(model, **options).modules} == expected


def test_a_sample_is_64_blocks_all_over_the_file_and_the_same_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(os.urandom(1 << 20))
    first = sample_content({path: None}, "key")
    assert first != sample_content({path: None}, "another key")
    noticed = set()
    for place in range(0, 1 << 20, 1 << 10):
        with open(path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
            file.flush()
            if sample_content({path: None}, "key") != first:
                noticed.add(place // (1 << 14))
            file.seek(place)
            file.write(byte)
    assert noticed == set(range(64)), "a sixty-fourth of the file was never sampled"
    assert (BLOCKS, BLOCK_BYTES) == (64, 4096)
    assert sample_content({}, "key") == ""


@pytest.mark.parametrize("date", [False, True])
def test_a_server_without_tags_that_changes_its_file_is_noticed(model: Path, date: bool) -> None:
    pytest.importorskip("obstore")
    served = {f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}
    with FileServer(dict(served), send_etag=False, send_date=date) as server:
        scan = sf.scan(f"{server.url}/m/m.safetensors")
        assert [module.snr for module in scan.modules] == [module.snr for module in sf.scan(model).modules]
        assert is_scan_of(scan, model) is True
        write(model, 1)
        other = (model / "m.safetensors").read_bytes()

        def swap(step: ScanProgress) -> None:
            if step.done == 1:
                server.objects["/m/m.safetensors"] = other

        with pytest.raises(CheckpointError, match="changed since it was opened"):
            sf.scan(f"{server.url}/m/m.safetensors", progress=swap)


def test_a_scan_behind_a_server_with_tags_is_known_by_its_digests(model: Path) -> None:
    pytest.importorskip("obstore")
    with FileServer({f"/m/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        scan = sf.scan(f"{server.url}/m/m.safetensors")
    assert "content" not in scan.provenance
    assert is_scan_of(scan, model) is True
    write(model, 1)
    assert is_scan_of(scan, model) is False


def test_ranks_and_scorers_keep_digests(model: Path) -> None:
    tensors = load_file(model / "m.safetensors")
    tensors["nan.weight"] = torch.full((4, 4), torch.nan)
    save_file(tensors, model / "m.safetensors")
    (failure,) = sf.scan(model).failures
    assert failure.digest is not None
