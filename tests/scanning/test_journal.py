"""The journal: nothing finished is lost, nothing wrong is taken for finished, and no other file is touched."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.errors import JournalError, ScanFileError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.scanning import ScanProgress, scorers
from spectrum_fast.scanning.journal import Journal, journal_path

SETTINGS = {"threads": 1}
IDENTITY = {"fingerprint": "abc", "method": "auto"}


def records(count: int) -> list[ModuleScore | ScanFailure]:
    scores = [
        ModuleScore(name=f"layers.{i}.up", type="up", snr=(i + 1) / 3, shape=(3, i), error_bound=1e-9 * i, note='"\n')
        for i in range(count)
    ]
    return [*scores, ScanFailure(name="bad", kind="values", message="holds NaN", shape=(2,), dtype="F32")]


def write(path: Path, entries: list[ModuleScore | ScanFailure]) -> bytes:
    with Journal(path) as journal:
        journal.begin(IDENTITY)
        for entry in entries:
            journal.append(entry, SETTINGS)
    return path.read_bytes()


def content(journal: Journal) -> dict[str, ModuleScore | ScanFailure]:
    return {**journal.modules, **journal.failures}


# --- the file ----------------------------------------------------------------------------------------------------


def test_what_is_appended_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, records(5))
    with Journal(path) as journal:
        journal.begin(IDENTITY)
        assert content(journal) == {entry.name: entry for entry in records(5)}
        assert journal.settings == [SETTINGS]
        assert (len(journal), "layers.3.up" in journal, "layers.9.up" in journal) == (6, True, False)


def test_wherever_the_file_was_cut_the_whole_lines_before_it_count(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    entries = records(2)
    data = write(path, entries)
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    cuts = {end + step for end in ends for step in (-2, -1, 0, 1)} | set(range(0, len(data), 25))
    for cut in sorted(cuts & set(range(len(data) + 1))):
        for filler in (b"", b"\0" * 7):  # some file systems leave zeros where data had not arrived
            path.write_bytes(data[:cut] + filler)
            with Journal(path) as journal:
                journal.begin(IDENTITY)
                # A line whose checksum is there is whole, with or without its line end.
                whole = sum(end - 1 <= cut if not filler else end <= cut for end in ends)
                assert list(content(journal).values()) == entries[: max(0, whole - 2)], cut
                journal.append(entries[-1], SETTINGS)
            with Journal(path) as journal:
                assert entries[-1].name in journal


def test_a_flipped_bit_never_makes_a_score(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    entries = {entry.name: entry for entry in records(2)}
    data = bytearray(write(path, list(entries.values())))
    places = range(0, len(data), 3)
    refused: list[str] = []
    for place in places:
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            with Journal(path) as journal:
                journal.begin(IDENTITY)
                assert content(journal).items() <= entries.items()
                assert len(journal) >= len(entries) - 2
        except JournalError as error:
            refused.append(str(error))
        data[place] ^= 1 << place % 8
    assert len(refused) == sum(place <= data.index(b"\n") for place in places)
    assert all("whose first line says what is scanned, found a damaged one" in message for message in refused)


@pytest.mark.parametrize("foreign", [b"{}", b"a scan of yesterday\n", b"\x80\x04K\x01.", b"deadbeef {}\n"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_is_no_journal_is_not_touched(tmp_path: Path, foreign: bytes, restart: bool) -> None:
    path = tmp_path / "precious"
    path.write_bytes(foreign)
    with pytest.raises(JournalError, match=r"precious: expected the journal of a scan, found something else"):
        Journal(path, restart=restart).__enter__()
    assert path.read_bytes() == foreign


def test_one_scan_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin(IDENTITY)
        for restart in (False, True):
            with pytest.raises(JournalError, match="another scan is at work on this journal and its scan file; wait"):
                Journal(path, restart=restart).__enter__()
        journal.append(records(1)[0], SETTINGS)
        assert len(journal) == 1
    with Journal(path) as journal:
        assert len(journal) == 1


def test_a_journal_without_a_module_leaves_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.begin(IDENTITY)
    assert not list(tmp_path.iterdir())


def test_a_header_alone_binds_nobody(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(write(path, records(1)).partition(b"\n")[0] + b"\n")
    with Journal(path) as journal:
        journal.begin({**IDENTITY, "method": "svd"})
        journal.append(records(1)[0], SETTINGS)
    with Journal(path) as journal, pytest.raises(JournalError, match='method was "svd", is "auto"'):
        journal.begin(IDENTITY)


def test_a_folder_a_pipe_and_a_missing_folder_are_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "cannot be opened: Is a directory"),
        (tmp_path / "pipe", "expected a regular file"),
        (tmp_path / "no" / "journal", "cannot be opened: No such file"),
    ):
        with pytest.raises(JournalError, match=message):
            Journal(path).__enter__()


def test_the_journal_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "scan.json")
    assert journal_path(tmp_path / "link.json") == tmp_path / "there" / ".scan.json.journal"


# --- scans -------------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop_at(count: int):
    def progress(step: ScanProgress) -> None:
        if step.name and step.done - step.resumed == count:
            raise StopError

    return progress


def test_a_scan_goes_on_where_it_was_and_ends_in_the_same_file(llama: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    sf.scan(llama, out=expected)
    out = tmp_path / "scan.json"
    scored: list[str] = []
    sittings = 0
    while True:
        sittings += 1
        steps: list[ScanProgress] = []
        stop = stop_at(4)

        def progress(step: ScanProgress, steps: list[ScanProgress] = steps, stop=stop) -> None:
            steps.append(step)
            scored.extend([step.name] if step.name else [])
            stop(step)

        try:
            scan = sf.scan(llama, out=out, progress=progress)
        except StopError:
            assert not out.exists()
            assert steps[0].resumed == steps[0].done == 4 * (sittings - 1)
            continue
        break
    assert sittings > 3
    assert len(scored) == len(set(scored)) == len(scan.modules)
    assert out.read_bytes() == expected.read_bytes()
    assert scan.run["resumed_modules"] == 4 * (sittings - 1)
    assert {path.name for path in tmp_path.iterdir()} == {"expected.json", "scan.json"}


def copy_of(model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    return target


def interrupted(model: Path, out: Path, **options) -> bytes:
    with pytest.raises(StopError):
        sf.scan(model, out=out, progress=stop_at(3), **options)
    return journal_path(out).read_bytes()


@pytest.fixture(scope="module")
def begun(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a scan that was interrupted."""
    return interrupted(llama, tmp_path_factory.mktemp("begun") / "scan.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"criterion": "mp"}, r'criterion was "spectrum", is "mp"'),
        ({"method": "band"}, r'method was "auto", is "band"'),
        ({"precision": "float64"}, r'precision was "auto", is "float64"'),
        ({"tolerance": 1e-6}, r"tolerance was 0\.0001, is 1e-06"),
        ({"include": ["*.mlp.*"]}, r'include was \[\], is \["\*\.mlp\.\*"\]'),
        ({"exclude": ["*.0.*"]}, "exclude was"),
        ({"include_norms": True}, "include_norms was false, is true"),
    ],
)
def test_other_options_are_refused_and_nothing_is_lost(
    llama: Path, begun: bytes, tmp_path: Path, changed, message: str
) -> None:
    out = tmp_path / "scan.json"
    journal_path(out).write_bytes(begun)
    with pytest.raises(JournalError, match=message + r".*3 finished modules away with --restart"):
        sf.scan(llama, out=out, **changed)
    assert journal_path(out).read_bytes() == begun


def test_restart_leaves_nothing_of_another_scan(llama: Path, begun: bytes, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    journal_path(out).write_bytes(begun)
    changed: Any = {"criterion": "mp", "include": ["*.mlp.*"]}
    scan = sf.scan(llama, out=out, restart=True, **changed)
    assert scan.run["resumed_modules"] == 0
    assert format_scan(scan) == format_scan(sf.scan(llama, **changed))


def test_another_version_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "scan.json"
    interrupted(llama, out)
    monkeypatch.setattr("spectrum_fast.scanning.provenance.__version__", "99.0")
    with pytest.raises(JournalError, match=r'version was "0\..*", is "99\.0"'):
        sf.scan(llama, out=out)


def test_a_changed_checkpoint_is_refused(llama: Path, tmp_path: Path) -> None:
    """Other shapes change the fingerprint; other values under the same header show in the state of the file."""
    model, out = copy_of(llama, tmp_path / "model"), tmp_path / "scan.json"
    kept = interrupted(model, out)
    file = model / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    for changed, message in (
        (tensors[name] * 2, r"identity|files model\.safetensors changed: was .* bytes, changed 20.*Z.*, is .*"),
        (tensors[name][:-1].contiguous(), "fingerprint was"),
    ):
        save_file({**tensors, name: changed}, file)
        with pytest.raises(JournalError, match=message):
            sf.scan(model, out=out)
        assert journal_path(out).read_bytes() == kept


def test_threads_may_change_and_are_said_so(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"
    interrupted(llama, out, threads=1)
    scan = sf.scan(llama, out=out, threads=2)
    assert scan.provenance["threads"] == [1, 2]
    once = sf.scan(llama, threads=1)
    assert once.provenance["threads"] == 1
    assert [module.name for module in once.modules] == [module.name for module in scan.modules]


def test_failures_are_kept_like_scores(tmp_path: Path) -> None:
    tensors = {f"layers.{i}.up.weight": torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)}
    tensors["layers.0.up.weight"][0, 0] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors")
    out = tmp_path / "scan.json"
    interrupted(tmp_path / "model.safetensors", out)
    assert b'{"failure":{"name":"layers.0.up"' in journal_path(out).read_bytes()
    steps: list[ScanProgress] = []
    scan = sf.scan(tmp_path / "model.safetensors", out=out, progress=steps.append)
    assert [failure.name for failure in scan.failures] == ["layers.0.up"]
    assert "layers.0.up" not in {step.name for step in steps}
    assert format_scan(scan) == format_scan(sf.scan(tmp_path / "model.safetensors"))


def test_the_journal_stays_until_the_scan_file_is_written(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "scan.json"

    def occupy(step: ScanProgress) -> None:
        if step.done == step.total:
            out.mkdir()

    with pytest.raises(ScanFileError, match="found a folder"):
        sf.scan(llama, out=out, progress=occupy)
    out.rmdir()
    steps: list[ScanProgress] = []
    scan = sf.scan(llama, out=out, progress=steps.append)
    assert len(steps) == 1  # nothing was left to do
    assert out.read_text() == format_scan(scan) == format_scan(sf.scan(llama))
    assert not journal_path(out).exists()


def test_a_journal_without_a_scan_file_stays_and_answers_at_once(llama: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = sf.scan(llama, journal=journal)
    assert sf.scan(llama, journal=journal) == first
    assert sf.scan(llama, journal=journal, restart=True).run["resumed_modules"] == 0


def test_a_journal_can_be_moved(llama: Path, tmp_path: Path) -> None:
    """It knows the checkpoint, not its own place."""
    out, elsewhere = tmp_path / "scan.json", tmp_path / "other" / "again.json"
    interrupted(llama, out)
    elsewhere.parent.mkdir()
    journal_path(out).rename(journal_path(elsewhere))
    assert sf.scan(llama, out=elsewhere).run["resumed_modules"] == 3


def test_restart_needs_a_journal(llama: Path) -> None:
    with pytest.raises(UsageError, match="restart: expected a journal"):
        sf.scan(llama, restart=True)


def test_an_error_that_is_no_ones_fault_loses_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory from the middle on: the modules before it are kept, the others tried again."""
    out = tmp_path / "scan.json"
    real = scorers.make_compute
    left = iter(range(5))

    def make(options):
        compute = real(options)

        def failing(weight):
            if next(left, None) is None:
                raise MemoryError
            return compute(weight)

        return failing

    with monkeypatch.context() as patch:
        patch.setattr(scorers, "make_compute", make)
        scan = sf.scan(llama, out=out, method="svd")  # which scores one by one
        assert {failure.kind for failure in scan.failures} == {"memory"}
    assert sf.scan(llama, out=out, method="svd").run["resumed_modules"] == 5


def test_random_journals_from_random_scans_resume(llama: Path, tmp_path: Path) -> None:
    """Any subset of modules, in any order, is a journal to go on from."""
    whole = tmp_path / "whole"
    expected = format_scan(sf.scan(llama, journal=whole))
    header, settings, *lines = whole.read_bytes().splitlines(keepends=True)
    choose = random.Random(1)  # noqa: S311
    for _ in range(5):
        part = tmp_path / "part"
        part.write_bytes(b"".join([header, settings, *choose.sample(lines, choose.randrange(1, len(lines)))]))
        scan = sf.scan(llama, journal=part)
        assert format_scan(scan) == expected
        assert json.loads(json.dumps(dict(scan.run)))["modules"] == len(lines)
