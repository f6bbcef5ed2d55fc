"""The index of a library: every answer is what the scan files say, whatever happened to them or to it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectrum_fast.choose.library import FoundModule, LibraryIndex, open_library
from spectrum_fast.choose.library.index import FILE_NAME
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.records import ModuleScore

from support.processes import script


def scan_of(model: str, *, criterion: str = "mp", layers: int = 3, shift: float = 0.0) -> Scan:
    """Scores that tell layer and type; the last layer's v_proj is noise-free."""
    modules = [
        ModuleScore(
            name=f"model.layers.{layer}.{kind}",
            type=kind,
            snr=None if kind.endswith("v_proj") and layer == layers - 1 else layer + weight + shift,
            noise_free=kind.endswith("v_proj") and layer == layers - 1,
            shape=(8, 8),
        )
        for layer in range(layers)
        for kind, weight in (("self_attn.v_proj", 0.25), ("mlp.up_proj", 0.5))
    ]
    modules.append(ModuleScore(name="lm_head", type="lm_head", snr=9.0 + shift, shape=(8, 8)))
    return Scan(model=model, criterion=criterion, modules=tuple(modules))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    library = open_library(str(tmp_path))
    for model in ("org/a", "org/b", "other/c"):
        library.add(scan_of(model, shift=ord(model[-1]) / 1000))
    library.add(scan_of("org/a", criterion="spectrum"))
    return tmp_path


def found(folder: Path, **conditions) -> list[FoundModule]:
    with LibraryIndex(folder) as index:
        assert index.refresh() == {}
        return list(index.find(**conditions))


def truth(folder: Path) -> list[FoundModule]:
    """All modules, read from the files without the index, the best first."""
    rows = []
    for path in folder.glob("scan_*.json"):
        content = json.loads(path.read_text())
        for module in content["modules"]:
            parts = [part for part in module["name"].split(".") if part.isdigit()]
            score = math.inf if module["noise_free"] else module["snr"]
            layer = int(parts[0]) if parts else None
            rows.append(
                FoundModule(content["model"], content["criterion"], module["name"], module["type"], layer, score)
            )
    return sorted(rows, key=lambda r: (-r.score, r.model, r.criterion, -1 if r.layer is None else r.layer, r.name))


def test_every_module_of_every_scan_is_found(folder: Path) -> None:
    assert found(folder) == truth(folder)
    assert len(truth(folder)) == 4 * 7


def test_which_layers_of_which_models_have_a_noise_free_v_proj(folder: Path) -> None:
    answers = found(folder, type="v_proj", noise_free=True)
    assert [(answer.model, answer.criterion, answer.layer) for answer in answers] == [
        ("org/a", "mp", 2),
        ("org/a", "spectrum", 2),
        ("org/b", "mp", 2),
        ("other/c", "mp", 2),
    ]


def test_conditions_are_met_together(folder: Path) -> None:
    everything = truth(folder)

    def chosen(test) -> list[FoundModule]:
        assert any(map(test, everything))
        return list(filter(test, everything))

    assert found(folder, model="org/*", layers=(1, 2)) == chosen(
        lambda m: m.model.startswith("org/") and m.layer in (1, 2)
    )
    assert found(folder, type="self_attn.*", criterion="mp") == chosen(
        lambda m: m.type.startswith("self_attn") and m.criterion == "mp"
    )
    assert found(folder, scores=(0.5, 2.0)) == chosen(lambda m: 0.5 <= m.score <= 2.0)
    assert found(folder, type="lm_head", limit=2) == chosen(lambda m: m.type == "lm_head")[:2]
    assert found(folder, layers=(0, 0)) == chosen(lambda m: m.layer == 0)
    assert found(folder, type="proj") == found(folder, model="nobody") == []


def test_the_index_follows_the_files(folder: Path) -> None:
    found(folder)
    library = open_library(str(folder))
    library.add(scan_of("org/b", layers=5, shift=1.0), replace=True)
    library.add(scan_of("org/d"))
    (folder / "scan_other-c.mp.json").unlink()
    assert found(folder) == truth(folder)
    assert {answer.model for answer in found(folder)} == {"org/a", "org/b", "org/d"}


def test_a_damaged_index_is_made_anew(folder: Path) -> None:
    expected = found(folder)
    (folder / FILE_NAME).write_bytes(b"no database at all" * 1000)
    assert found(folder) == expected
    with LibraryIndex(folder) as index:
        index._connection.execute("PRAGMA user_version = 99")
    assert found(folder) == expected


def test_a_broken_scan_is_named_and_the_others_are_found(folder: Path) -> None:
    (folder / "scan_broken.mp.json").write_text('{"schema": 1')
    with LibraryIndex(folder) as index:
        (problem,) = index.refresh().items()
        assert problem[0] == "scan_broken.mp.json"
        assert index.refresh() == dict([problem]), "still broken, though not read again"
        assert list(index.find()) == truth_without(folder, "scan_broken.mp.json")


def truth_without(folder: Path, name: str) -> list[FoundModule]:
    (folder / name).unlink()
    return truth(folder)


def test_a_folder_without_the_right_to_write_is_one_clear_error(folder: Path) -> None:
    (folder / FILE_NAME).mkdir()
    with (
        pytest.raises(ScanFileError, match=r"index\.sqlite: the index cannot be read or written"),
        LibraryIndex(folder),
    ):
        pass


@pytest.mark.parametrize("scans", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_scans_take_little_memory(tmp_path: Path, scans: int) -> None:
    done = subprocess.run(
        [sys.executable, script("index_many_scans"), tmp_path, str(scans)],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    free, one, best, ordered, kib = done.stdout.split()
    assert (int(free), int(one), int(best), ordered) == (scans // 100 * 32, 32 * 7, 10, "True")
    assert int(kib) < 100 * 1024
    assert (tmp_path / FILE_NAME).stat().st_size < scans * 32 * 7 * 40 + 200_000
