"""A library of scans in a folder: published ones as they are, ours whole and in the reference's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import Scan, load_scan, scan
from spectrum_fast.choose.library import open_library
from spectrum_fast.choose.library.file_names import stored_files
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.records import ScanFailure

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "data" / "published_snr"
EMPTY = "deepseek-ai-DeepSeek-V3.1-Base"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("library"), like="tiny", layers=2).path


@pytest.fixture(scope="module")
def scanned(checkpoint: Path) -> Scan:
    return scan(checkpoint)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published results are not beside the checkout")
def test_the_published_collection_is_read_whole() -> None:
    library = open_library(str(PUBLISHED))
    entries = {entry.slug: entry for entry in library.entries()}
    files = {path.name for path in PUBLISHED.glob("*.json")}
    assert {name for entry in entries.values() for name in entry.files} == files
    for slug, entry in entries.items():
        if slug == EMPTY:
            assert entry.modules is None
            assert entry.problem.startswith(f"snr_results_{EMPTY}.json: expected JSON, found an empty file")
            with pytest.raises(ScanFileError, match="found an empty file"):
                library.load("deepseek-ai/DeepSeek-V3.1-Base")
        else:
            assert entry.problem == ""
            found = library.load(slug)
            assert (len(found.modules), len(found.by_type())) == (entry.modules, entry.types)
            text = (PUBLISHED / entry.files[0]).read_text()
            assert library.read(slug) == text
            document = json.loads(text)
            leaves = [node for node in document.values() if "snr" not in node]
            assert entry.modules == sum(map(len, leaves)) if leaves else len(document)
    assert library.load("Qwen/Qwen2-7B").model == "Qwen-Qwen2-7B"
    with pytest.raises(ScanFileError, match=r"no scan of 'Qwen/Qwen2-7b' .* nearest: Qwen-Qwen2-7B"):
        library.load("Qwen/Qwen2-7b")


def test_our_scan_comes_back_whole_and_others_can_read_it(scanned: Scan, tmp_path: Path) -> None:
    library = open_library(str(tmp_path))
    written = library.add(scanned, model="org/My_Model-1.5")
    assert written == ("scan_org-My-Model-1.5.spectrum.json", "snr_results_org-My-Model-1.5.json")
    assert {path.name for path in tmp_path.iterdir()} == set(written)
    assert library.load("org/My_Model-1.5") == scanned
    scores = json.loads((tmp_path / written[1]).read_text())
    assert {name: entry["snr"] for name, entry in scores.items()} == {
        module.name: module.rank_value for module in scanned.modules
    }
    (entry,) = library.entries()
    assert (entry.slug, entry.criterion, entry.modules) == ("org-My-Model-1.5", "spectrum", len(scanned.modules))
    (entry,) = library.entries(read=False)
    assert (entry.files, entry.modules) == (written, None)


def test_nothing_is_overwritten_unless_told(checkpoint: Path, scanned: Scan, tmp_path: Path) -> None:
    library = open_library(str(tmp_path))
    library.add(scanned, model="org/name")
    library.add(scanned, model="org/name")  # the same content: nothing to lose
    other = scan(checkpoint, include=["*.q_proj"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ScanFileError, match=r"holds another scan_org-name\.spectrum\.json already; add it with --rep"):
        library.add(other, model="org/name")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    library.add(other, model="org/name", replace=True)
    assert library.load("org/name") == other


def test_criteria_live_side_by_side_and_mp_is_not_shown_to_other_readers(checkpoint: Path, tmp_path: Path) -> None:
    library = open_library(str(tmp_path))
    mp = scan(checkpoint, criterion="mp")
    assert library.add(mp, model="org/name") == ("scan_org-name.mp.json",)
    assert library.load("org/name", "mp") == mp
    with pytest.raises(ScanFileError, match="no scan of 'org/name' by the criterion 'spectrum' among 0"):
        library.load("org/name")


def test_a_published_scan_is_kept_as_scores(scanned: Scan, tmp_path: Path) -> None:
    source = tmp_path / "snr_results_a-b.json"
    (tmp_path / "library").mkdir()
    library = open_library(str(tmp_path / "library"))
    open_library(str(tmp_path)).add(scanned, model="a/b")
    published = load_scan(source)
    assert library.add(published) == ("snr_results_a-b.json",)
    assert library.load("a/b") == published


def test_an_incomplete_scan_is_refused(scanned: Scan, tmp_path: Path) -> None:
    broken = Scan(scanned.model, scanned.criterion, scanned.modules, (ScanFailure(name="x", kind="nan", message="m"),))
    with pytest.raises(ScanFileError, match="1 tensors have no score; a library holds complete scans"):
        open_library(str(tmp_path)).add(broken)
    with pytest.raises(ScanFileError, match="expected a model's name to file it under, found '/'"):
        open_library(str(tmp_path)).add(scanned, model="/")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_that_axolotl_reads_is_looked_at_too(scanned: Scan, tmp_path: Path) -> None:
    (tmp_path / "model_snr_results").mkdir()
    (tmp_path / "notes.json").write_text("{}")
    open_library(str(tmp_path / "model_snr_results")).add(scanned, model="a/b")
    (entry,) = open_library(str(tmp_path)).entries()
    assert entry.files[0] == "model_snr_results/scan_a-b.spectrum.json"
    assert open_library(str(tmp_path)).load("a/b") == scanned


def test_which_file_is_preferred() -> None:
    names = ["snr_results_a_sorted.json", "snr_results_a.json", "x/scan_a.spectrum.json", "scan_a.mp.json", "a.json"]
    assert stored_files(names) == {
        ("a", "mp"): ("scan_a.mp.json",),
        ("a", "spectrum"): ("x/scan_a.spectrum.json", "snr_results_a.json", "snr_results_a_sorted.json"),
    }


@pytest.mark.parametrize("place", ["nowhere", "./no/such/folder", "hf://datasets/only-one", "../up/there"])
def test_no_library(place: str) -> None:
    with pytest.raises(ScanFileError, match="no such folder, and not a dataset on the hub either"):
        open_library(place)


def test_a_file_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text("{}")
    with pytest.raises(ScanFileError, match="expected a folder with scans, found a file"):
        open_library(str(tmp_path / "scan.json"))
