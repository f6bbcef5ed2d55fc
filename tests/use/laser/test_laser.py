"""LASER's checkpoints against truncated float64 singular value decompositions, byte for byte elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.errors import CheckpointError, SelectionError, TensorError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.use.cli import main
from spectrum_fast.use.laser import choose_targets, write_laser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sharded, with a tokenizer's file, a pickle and a folder beside the weights."""
    path = tmp_path_factory.mktemp("model")
    write_checkpoint(path, like="llama-3-8b", layers=4, scale=32, shard_gib=0.001)
    (path / "tokenizer.json").write_text('{"a": 1}')
    (path / "pytorch_model.bin").write_bytes(b"out of date")
    (path / "runs").mkdir()
    return path


@pytest.fixture(scope="module")
def scan(folder: Path) -> sf.Scan:
    return sf.scan(folder, criterion="mp")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def chosen(scan: sf.Scan, percent: float = 50) -> list[str]:
    return [m.name for m in scan.select(percent, always="none").modules if "layers" in m.name]


def test_matrices_are_the_best_of_their_rank_and_all_else_is_kept(folder: Path, scan: sf.Scan, tmp_path: Path) -> None:
    names = chosen(scan)
    targets, whole = choose_targets(open_checkpoint(folder), scan, names)
    assert {target.module for target in targets} | set(whole) == set(names)
    out = tmp_path / "out"
    records = {record.module: record for record in write_laser(open_checkpoint(folder), targets, out)}
    assert len(records) == len(targets) > 10
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys()
    replaced = {target.parameter for target in targets}
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        if name not in replaced:
            assert torch.equal(after[name].view(torch.int16), tensor.view(torch.int16)), name
    for target in targets:
        record, W = records[target.module], before[target.parameter].double()
        assert record.rank == target.rank == max(1, scan.module(target.module).n_signal or 0)
        U, s, Vh = torch.linalg.svd(W)
        best = (s[target.rank :] ** 2).sum().sqrt() / s.norm()
        assert best * (1 - 1e-5) <= record.relative_error <= best * 1.001 + 1e-6
        low = (U[:, : target.rank] * s[: target.rank]) @ Vh[: target.rank]
        found = after[target.parameter].double()
        rounding = 2.0**-8 * low.norm()  # bfloat16
        assert (W - found).norm() <= (W - low).norm() * 1.001 + rounding
        kept = torch.linalg.svdvals(found)
        assert torch.allclose(kept[: target.rank], s[: target.rank], rtol=0.02, atol=float(4 * rounding))


def test_headers_index_and_files_are_the_same(folder: Path, scan: sf.Scan, tmp_path: Path) -> None:
    targets, _ = choose_targets(open_checkpoint(folder), scan, chosen(scan))
    out = tmp_path / "out"
    write_laser(open_checkpoint(folder), targets, out)
    old = {p.name for p in folder.iterdir() if p.is_file()} - {"pytorch_model.bin"}
    assert {p.name for p in out.iterdir()} == old | {"laser.json"}
    for file in folder.glob("*.safetensors"):
        length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        assert (out / file.name).read_bytes()[:length] == file.read_bytes()[:length]
        assert (out / file.name).stat().st_size == file.stat().st_size
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    document = json.loads((out / "laser.json").read_text())
    assert [module["module"] for module in document["modules"]]
    assert document["fingerprint"] == open_checkpoint(folder).fingerprint


def test_fused_experts_are_replaced_one_by_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "model.layers.0.mlp.experts.down_proj"
    save_file({name: torch.randn(4, 24, 40), "model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path, criterion="mp")
    modules = [f"model.layers.0.mlp.experts.{expert}.down_proj" for expert in (1, 3)]
    targets, _ = choose_targets(open_checkpoint(tmp_path), scan, modules, rank=5)
    write_laser(open_checkpoint(tmp_path), targets, tmp_path / "out")
    before, after = load_file(tmp_path / "model.safetensors")[name], tensors_of(tmp_path / "out")[name]
    for expert in range(4):
        assert torch.equal(before[expert], after[expert]) == (expert in (0, 2))
    for expert in (1, 3):
        U, s, Vh = torch.linalg.svd(before[expert].double())
        assert torch.allclose(after[expert].double(), (U[:, :5] * s[:5]) @ Vh[:5], atol=1e-3 * float(s[0]))


def test_transformers_loads_the_result(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=64
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    scan = sf.scan(tmp_path / "model")
    names = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"]
    targets, _ = choose_targets(checkpoint, scan, names, fraction=0.25)
    write_laser(checkpoint, targets, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.linalg.matrix_rank(model.model.layers[0].mlp.down_proj.weight, rtol=1e-5) == 16
    assert torch.linalg.matrix_rank(model.model.layers[0].mlp.up_proj.weight, rtol=1e-5) == 64


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"rank": 4, "fraction": 0.5}, UsageError, "give one of them"),
        ({"rank": 0}, UsageError, "rank: expected"),
        ({"fraction": 1.0}, UsageError, "fraction: expected"),
        ({"rank": 4, "ranks": {}}, UsageError, "give one of them"),
        ({"rank": 4, "names": ["nobody"]}, SelectionError, "nobody: chosen, but not in the scan"),
    ],
)
def test_bad_choices_are_refused(folder: Path, values: dict, error: type, message: str) -> None:
    scan = sf.scan(folder, include=["*q_proj"])
    names = values.pop("names", ["model.layers.0.self_attn.q_proj"])
    with pytest.raises(error, match=message):
        choose_targets(open_checkpoint(folder), scan, names, **values)


def test_ranks_of_a_file_and_of_a_rule(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = sf.scan(folder, spectra=True, out=tmp_path / "scan.json")
    names = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    said = {"target_modules": names, "r": 3, "rank_pattern": {names[1]: 7}}
    (tmp_path / "k.json").write_text(json.dumps(said))
    for place, rule in enumerate((str(tmp_path / "k.json"), "0.5", "edge")):
        out = tmp_path / str(place)
        words = ["laser", str(folder), "--scan", str(tmp_path / "scan.json"), "--ranks", rule, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["spectrum-fast", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        ranks = {one["module"]: one["rank"] for one in json.loads((out / "laser.json").read_text())["modules"]}
        if place == 0:
            assert ranks == {names[0]: 3, names[1]: 7}
            continue
        for name, rank in ranks.items():
            energies = scan.module(name).singular_values.values ** 2
            expected = 1 + int((np.cumsum(energies) < 0.5 * energies.sum()).sum())
            assert rank == (expected if rule == "0.5" else max(1, scan.module(name).mp_rank or 0))
    with pytest.raises(UsageError, match="of a difference"):
        choose_targets(open_checkpoint(folder), sf.scan(folder, minus=str(folder), include=["*q_proj"]), names[:1])


def test_a_scan_of_another_model_is_refused(folder: Path, scan: sf.Scan, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, like="llama-3-8b", layers=4, scale=64)
    with pytest.raises(CheckpointError, match="another checkpoint"):
        choose_targets(open_checkpoint(tmp_path), scan, chosen(scan))


def test_nothing_is_left_of_a_failure(folder: Path, scan: sf.Scan, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    targets, _ = choose_targets(checkpoint, scan, chosen(scan))
    with pytest.raises(UsageError, match="is there already"):
        write_laser(checkpoint, targets, folder)
    with pytest.raises(UsageError, match="no matrix to replace"):
        write_laser(checkpoint, (), tmp_path / "out")
    with pytest.raises(UsageError, match="there is no folder"):
        write_laser(checkpoint, targets, tmp_path / "nowhere" / "out")

    def interrupt(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_laser(checkpoint, targets, tmp_path / "out", progress=interrupt)
    broken = tmp_path / "broken"
    broken.mkdir()
    W = torch.randn(8, 8)
    save_file({"a.weight": W}, broken / "model.safetensors")
    small = sf.scan(broken)
    W[0, 0] = torch.nan
    save_file({"a.weight": W}, broken / "model.safetensors")
    bad = open_checkpoint(broken)
    with pytest.raises(TensorError, match=r"a\.weight in .*NaN"):
        write_laser(bad, choose_targets(bad, small, ["a"], rank=2)[0], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken"]


def test_the_command(folder: Path, scan: sf.Scan, tmp_path: Path, capsys, monkeypatch) -> None:
    scan.save(tmp_path / "scan.json")
    arguments = ["laser", folder, "--scan", tmp_path / "scan.json", "--top-percent", "25", "--out", tmp_path / "out"]
    for code in (0, 2):
        monkeypatch.setattr("sys.argv", ["spectrum-fast", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert leaving.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "7 matrices at low rank" in captured.err
    assert "is there already" in captured.err
    assert len(json.loads((tmp_path / "out" / "laser.json").read_text())["modules"]) == 7
