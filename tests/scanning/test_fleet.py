"""Many checkpoints into a library: nothing lost by faults, interruptions or changes, and what fails is said."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.choose.library import open_library
from spectrum_fast.errors import CheckpointError, UsageError
from spectrum_fast.scanning.fleet import FleetOutcome, scan_fleet
from spectrum_fast.scanning.fleet_list import FleetModel, list_models
from spectrum_fast.scanning.options import ScanOptions

from support.file_server import Fault, FileServer, Request, forward_to
from support.s3_server import serve_s3, use_s3

NAME = "model.layers.{}.mlp.up_proj.weight"


def write_checkpoint(folder: Path, seed: int, *, broken: bool = False) -> Path:
    """Two layers of one matrix each."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    weights = {NAME.format(layer): torch.randn(24, 32, generator=generator) for layer in range(2)}
    if broken:
        weights[NAME.format(1)][3, 4] = torch.nan
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[FleetModel]:
    names = [f"m{number}" for number in range(5)]
    return [FleetModel(str(write_checkpoint(tmp_path / "models" / name, ord(name[1]))), name) for name in names]


def run(models: list[FleetModel], folder: Path, **options) -> dict[str, FleetOutcome]:
    given = {key: options.pop(key) for key in ("attempts", "tell") if key in options}
    outcomes = scan_fleet(models, folder, ScanOptions(threads=1, **options), **given)
    assert [outcome.model for outcome in outcomes] == models
    return {outcome.model.name: outcome for outcome in outcomes}


def states(outcomes: dict[str, FleetOutcome]) -> str:
    return " ".join(outcome.state for outcome in outcomes.values())


def assert_filed(models: list[FleetModel], folder: Path) -> None:
    for model in models:
        assert open_library(str(folder)).load(model.name).modules == sf.scan(model.source, threads=1).modules
    assert not list((folder / ".fleet").glob("*.journal"))


def test_a_fleet_is_filed_and_kept_the_second_time(models: list[FleetModel], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "library"
    assert states(run(models, folder)) == "scanned scanned scanned scanned scanned"
    assert_filed(models, folder)
    assert states(run(models, folder)) == "kept kept kept kept kept"
    assert states(run(models, folder, restart=True)) == "scanned scanned scanned scanned scanned"


def test_what_has_changed_is_scanned_again(models: list[FleetModel], tmp_path: Path) -> None:
    run(models, tmp_path)
    write_checkpoint(Path(models[1].source), seed=99)
    (tmp_path / "scan_m3.spectrum.json").unlink()
    assert states(run(models, tmp_path)) == "kept scanned kept scanned kept"
    assert_filed(models, tmp_path)
    assert states(run(models, tmp_path, tolerance=1e-3)) == "scanned scanned scanned scanned scanned"


def test_a_copy_at_another_place_is_known_by_its_bytes(models: list[FleetModel], tmp_path: Path) -> None:
    folder = tmp_path / "library"
    run(models, folder)
    moved = [FleetModel(str(tmp_path / "copies" / model.name), model.name) for model in models]
    shutil.copytree(tmp_path / "models", tmp_path / "copies")
    for model in moved:
        os.utime(Path(model.source) / "model.safetensors")
    weights = load_file(tmp_path / "copies" / "m3" / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, tmp_path / "copies" / "m3" / "model.safetensors")
    before = {model.name: (folder / f"scan_{model.name}.spectrum.json").read_bytes() for model in models}
    assert states(outcomes := run(moved, folder)) == "kept kept kept scanned kept"
    assert outcomes["m0"].detail == "its scan is in the library, of the same bytes at another place or time"
    assert {name for name, raw in before.items() if (folder / f"scan_{name}.spectrum.json").read_bytes() != raw} == {
        "m3"
    }
    assert run(moved, folder)["m0"].detail == "its scan is in the library"


def test_an_interrupted_fleet_goes_on(models: list[FleetModel], tmp_path: Path) -> None:
    def interrupt(outcome: FleetOutcome) -> None:
        if outcome.model.name == "m2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(models, tmp_path, tell=interrupt)
    assert states(run(models, tmp_path)) == "kept kept kept scanned scanned"
    assert_filed(models, tmp_path)


def test_tensors_without_a_score_are_named_and_the_others_are_kept(models: list[FleetModel], tmp_path: Path) -> None:
    write_checkpoint(Path(models[2].source), seed=2, broken=True)
    outcomes = run(models, tmp_path)
    assert states(outcomes) == "scanned scanned failed scanned scanned"
    assert outcomes["m2"].detail.startswith(f"1 of 2 modules have no score: {NAME.format(1)} in model.safetensors:")
    assert outcomes["m2"].attempts == 1, "another attempt would find the same"
    incomplete = sf.load_scan(tmp_path / ".fleet" / "m2.spectrum.incomplete.json")
    assert [module.name for module in incomplete.modules] == ["model.layers.0.mlp.up_proj"]
    write_checkpoint(Path(models[2].source), seed=2)
    assert states(run(models, tmp_path)) == "kept kept scanned kept kept"
    assert_filed(models, tmp_path)
    assert not (tmp_path / ".fleet" / "m2.spectrum.incomplete.json").exists()


def test_a_failure_is_tried_again_after_all_others(models: list[FleetModel], tmp_path: Path) -> None:
    source = Path(models[0].source) / "model.safetensors"
    hidden = source.rename(tmp_path / "hidden")
    order: list[tuple[str, str]] = []

    def mend(outcome: FleetOutcome) -> None:
        order.append((outcome.model.name, outcome.state))
        if len(order) == 7:  # five, and the second attempt
            hidden.rename(source)

    models.append(FleetModel(str(tmp_path / "nowhere"), "nowhere"))
    outcomes = run(models, tmp_path, tell=mend)
    assert [name for name, state in order if state == "failed"] == ["m0", "nowhere", "m0", "nowhere", "nowhere"]
    assert states(outcomes) == "scanned scanned scanned scanned scanned failed"
    assert (outcomes["m0"].attempts, outcomes["nowhere"].attempts) == (3, 3)
    assert "nowhere" in outcomes["nowhere"].detail
    assert_filed(models[:-1], tmp_path)


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_bucket_of_checkpoints_under_faults(count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two kinds of faults in the network, two in the checkpoints; and an interruption."""
    pytest.importorskip("obstore")
    local = [write_checkpoint(tmp_path / f"m{n}", n, broken=n == 3) for n in range(count)]
    with serve_s3() as endpoint, FileServer(answer=forward_to(endpoint)) as server:
        bucket = use_s3(endpoint, monkeypatch).Bucket("models")
        bucket.create()
        for folder in local:
            bucket.upload_file(str(folder / "model.safetensors"), f"org/{folder.name}/model.safetensors")
        bucket.put_object(Key="org/m5/model.safetensors", Body=(local[5] / "model.safetensors").read_bytes()[:-100])
        listed = tmp_path / "list.txt"
        listed.write_text("# all\n\n" + "".join(f"s3://models/org/m{n} org/m{n}\n" for n in range(count)))
        models = list_models(str(listed))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        spent: list[str] = []
        turns = itertools.count(1)

        def choose(request: Request) -> Fault | None:
            if request.method != "GET" or next(turns) % 3:
                return None
            spent.append(("status", "short")[len(spent) % 2])
            return Fault(spent[-1])

        server.choose = choose
        done = itertools.count(1)

        def interrupt(_: FleetOutcome) -> None:
            if next(done) == count // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(models, tmp_path / "library", tell=interrupt, attempts=2)
        outcomes = run(models, tmp_path / "library", attempts=2)
    assert len(spent) > count // 4
    assert set(spent) == {"status", "short"}
    failed = {name for name, outcome in outcomes.items() if outcome.state == "failed"}
    assert failed == {"org/m3", "org/m5"}
    assert "no score" in outcomes["org/m3"].detail
    assert "model.safetensors" in outcomes["org/m5"].detail
    assert states(outcomes).count("kept") >= count // 2 - 2
    library = open_library(str(tmp_path / "library"))
    for number, folder in enumerate(local):
        if number not in (3, 5):
            assert library.load(f"org/m{number}").modules == sf.scan(folder, threads=1).modules


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_a_fleet_on_ray_files_the_same(models: list[FleetModel], tmp_path: Path) -> None:
    write_checkpoint(Path(models[2].source), seed=2, broken=True)
    outcomes = run(models, tmp_path, ray="local")
    assert states(outcomes) == "scanned scanned failed scanned scanned"
    for model in models[:2] + models[3:]:
        assert open_library(str(tmp_path)).load(model.name).modules == sf.scan(model.source, threads=1).modules


# --- what a fleet is ---------------------------------------------------------------------------------------------


def test_a_folder_is_all_its_checkpoints(models: list[FleetModel], tmp_path: Path) -> None:
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "notes.txt").touch()
    assert list_models(f"{tmp_path}/models/*") == models


def test_a_list_names_sources_and_names(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("org/name@v1\n# no\n\ns3://b/k/m1/\n/disk/x.safetensors y\n  /disk/z.safetensors  \n")
    assert list_models(str(listed)) == [
        FleetModel("org/name@v1", "org/name"),
        FleetModel("s3://b/k/m1/", "m1"),
        FleetModel("/disk/x.safetensors", "y"),
        FleetModel("/disk/z.safetensors", "z"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected checkpoints to scan, found none"),
        ("a b c\n", r":1: expected SOURCE or SOURCE NAME, found 'a b c'"),
        ("s3://x/m\ns3://y/m\n", "s3://x/m and s3://y/m would both be filed as m"),
        ("org/a-b\norg/a_b\n", "would both be filed as org/a_b"),
    ],
)
def test_a_bad_list_is_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list").write_text(content)
    with pytest.raises(UsageError, match=message):
        list_models(str(tmp_path / "list"))


def test_what_is_no_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected a file with one checkpoint a line"):
        list_models("no-such-file")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # a dead address is tried for 20 seconds
    with pytest.raises(CheckpointError, match=r"some-org/\*: the hub cannot be asked"):
        list_models("some-org/*")
