"""What is selected from a scan is what float64 singular values select, or the scan says that the cut is undecided.

One checkpoint a family: twelve matrices of one type, some of them the same matrix turned about (equal scores in exact
arithmetic) or scaled by a millionth (a gap that float32 does not see and float64 does).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import spectrum_fast as sf
from spectrum_fast.choose.selection.records import SelectionGroup
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.naming import natural_key
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.scanning.refine import doubtful_modules, refine_cuts

from support import families
from support.bounds import Truth
from support.marks import slow

ROWS, COLUMNS = 208, 240
DRAWN = 7
PERCENTS = (10, 34, 50, 75)
BLOCK = (128, 128)


pytestmark = pytest.mark.usefixtures("one_thread")


def name_of(layer: int) -> str:
    return f"model.layers.{layer}.mlp.up_proj"


def turned(matrix: Tensor) -> list[Tensor]:
    """Matrices whose singular values are those of ``matrix``, and one whose values are larger by a millionth."""
    signs = torch.where(torch.arange(matrix.shape[0]) % 3 == 0, -1.0, 1.0).to(matrix.dtype)
    rows = torch.randperm(matrix.shape[0], generator=torch.Generator().manual_seed(1))
    return [matrix * signs[:, None], matrix[rows], matrix.T.contiguous(), matrix.flip(1), matrix * (1 + 2.0**-20)]


def draw_layers(family: str) -> list[Tensor]:
    """Seven matrices of one family at one scale, and five that are one of them turned about."""
    drawn = []
    for seed in range(DRAWN):
        matrix = families.FAMILIES[family](np.random.default_rng([seed, *family.encode()]), ROWS, COLUMNS)
        drawn.append(torch.from_numpy(matrix / np.abs(matrix).max()).to(torch.float32))
    return [*drawn, *turned(drawn[2])]


def save(folder: Path, layers: list[Tensor]) -> dict[str, Tensor]:
    save_file({f"{name_of(n)}.weight": weight for n, weight in enumerate(layers)}, folder / "model.safetensors")
    return {name_of(n): weight for n, weight in enumerate(layers)}


def save_codes(folder: Path, layers: list[Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same as FP8 codes with a scale for each block of 128 x 128; returns what they stand for."""
    stored, meant = {}, {}
    for number, layer in enumerate(layers):
        codes, scales = families.to_codes(layer.double(), dtype, BLOCK)
        stored |= {f"{name_of(number)}.weight": codes, f"{name_of(number)}.weight_scale_inv": scales}
        meant[name_of(number)] = families.from_codes(codes, scales, BLOCK)
    save_file(stored, folder / "model.safetensors")
    return meant


def true_scores(weights: dict[str, Tensor], criterion: str) -> dict[str, float]:
    """Scores by float64 SVD; infinite where noise-free."""
    scores = {}
    for name, weight in weights.items():
        expected = Truth.of(weight).expected(find_criterion(criterion))
        scores[name] = np.inf if expected.snr is None else float(expected.snr)
    return scores


def check_selections(folder: Path, weights: dict[str, Tensor], criterion: str) -> list[SelectionGroup]:
    """Scan, and select at several percentages; returns the cuts."""
    plain = sf.scan(folder, criterion=criterion, top_percent=None)
    plan = plan_scan(open_checkpoint(folder))
    truth = true_scores({module.name: weights[module.name] for module in plain.modules}, criterion)
    order = sorted(truth, key=lambda name: (-truth[name], natural_key(name)))
    cuts = []
    for percent in PERCENTS:
        scan = refine_cuts(plain, plan, ScanOptions(criterion=criterion, top_percent=percent, device="cpu"))
        check_refined(plain, scan, percent)
        selection = scan.select(percent, always="none", allow_incomplete=True)
        (cut,) = selection.groups
        found, expected = {module.name for module in selection.modules}, set(order[: cut.taken])
        if found != expected:
            assert cut.undecided, f"{percent} %: {found ^ expected}"
            least, most = truth[order[cut.taken]], truth[order[cut.taken - 1]]
            for name in found ^ expected:  # their scores may as well be those at the cut
                low, high = scan.module(name).score_range
                assert low <= most, name
                assert high >= least, name
        cuts.append(cut)
    return cuts


def check_refined(plain: sf.Scan, scan: sf.Scan, percent: float) -> None:
    """Everything that might stand on either side of the cut was scored again in float64, and nothing else was."""
    doubtful = doubtful_modules(plain, percent)
    assert scan.provenance.get("refined", []) == sorted(doubtful)
    for module in scan.modules:
        if module.name in doubtful:
            assert f"refined: the cut at {percent} % was undecided" in module.note
            assert module.method in ("band-float64", "svd-float64")
        else:
            assert module == plain.module(module.name)


@pytest.mark.parametrize("criterion", ["spectrum", *slow("mp")])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_family_is_selected_as_float64_selects_it(tmp_path: Path, family: str, criterion: str) -> None:
    check_selections(tmp_path, save(tmp_path, draw_layers(family)), criterion)


@pytest.mark.parametrize(("family", "criterion"), [("near_edge", "mp"), ("heavy_tailed", "mp")])
def test_the_corrected_rule_too(tmp_path: Path, family: str, criterion: str) -> None:
    check_selections(tmp_path, save(tmp_path, draw_layers(family)), criterion)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_codes_are_selected_as_what_they_stand_for(tmp_path: Path, dtype: torch.dtype) -> None:
    check_selections(tmp_path, save_codes(tmp_path, draw_layers("spiked"), dtype), "spectrum")


def test_equal_scores_at_a_cut_are_said_to_be_undecided_and_go_by_name(tmp_path: Path) -> None:
    """Rows of other signs change no bit of a Gram matrix: bit-equal scores, whose order is that of the names."""
    drawn = draw_layers("gaussian")[:2]
    best, other = (drawn[0], drawn[1]) if true_best(drawn) == 0 else (drawn[1], drawn[0])
    signs = [torch.where(torch.arange(ROWS) % n == 0, -1.0, 1.0)[:, None] for n in range(2, 10)]
    layers = [best * sign for sign in signs] + [other]
    save(tmp_path, layers)
    scans = [sf.scan(tmp_path, top_percent=34, threads=threads) for threads in (1, 1, 2)]
    for scan in scans:
        assert len({scan.module(name_of(n)).snr for n in range(8)}) == 1
        assert scan.provenance["refined"] == [name_of(n) for n in range(8)]
        selection = scan.select(34, always="none")
        assert [module.name for module in selection.modules] == [name_of(n) for n in range(3)]
        assert selection.groups[0].undecided
        assert "undecided" in selection.summary()
    assert scans[0].modules == scans[1].modules


def true_best(layers: list[Tensor]) -> int:
    scores = list(true_scores({str(n): layer for n, layer in enumerate(layers)}, "spectrum").values())
    return int(np.argmax(scores))


def test_scores_equal_in_exact_arithmetic_are_undecided_and_chosen_alike_every_time(tmp_path: Path) -> None:
    drawn = draw_layers("gaussian")[2]
    save(tmp_path, [drawn, *turned(drawn)[:4]])
    scans = [sf.scan(tmp_path, top_percent=40) for _ in range(2)]
    selections = [scan.select(40, always="none") for scan in scans]
    assert selections[0].groups[0].undecided
    assert scans[0].provenance["refined"] == [name_of(n) for n in range(5)]
    assert selections[0].names == selections[1].names


def test_a_gap_that_float32_does_not_see_is_decided(tmp_path: Path) -> None:
    drawn = draw_layers("gaussian")[2]
    save(tmp_path, [drawn, turned(drawn)[4]])  # the published score falls when the weights grow
    scan = sf.scan(tmp_path, top_percent=50)
    assert scan.provenance["refined"] == [name_of(0), name_of(1)]
    selection = scan.select(50, always="none")
    assert selection.names == (name_of(0),)
    assert not selection.groups[0].undecided


def test_a_wide_bound_farther_down_makes_a_cut_undecided() -> None:
    """Not only the two scores at the cut count: a third may reach across it."""

    def scored(layer: int, snr: float, bound: float) -> ModuleScore:
        return ModuleScore(name=name_of(layer), type="mlp.up_proj", snr=snr, error_bound=bound)

    narrow = [scored(0, 1.0, 1e-12), scored(1, 0.9999, 1e-12)]
    for bound, undecided in ((1e-12, False), (1e-3, True)):
        scan = sf.Scan("m", "spectrum", (*narrow, scored(2, 0.9995, bound)))
        (cut,) = scan.select(34).groups
        assert cut.taken == 1
        assert cut.undecided is undecided
        assert doubtful_modules(scan, 34) == ([name_of(0), name_of(2)] if undecided else [])


def test_parts_of_a_fused_parameter_are_refined_together(tmp_path: Path) -> None:
    stack = torch.stack(draw_layers("gaussian")[:3])
    experts = {f"model.layers.{n}.mlp.experts.down_proj": stack * sign for n, sign in ((0, 1.0), (1, -1.0))}
    experts["model.layers.2.mlp.experts.down_proj"] = stack * 4  # a published score falls as weights grow
    save_file(experts, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path, top_percent=50)
    refined = [f"model.layers.{n}.mlp.experts.{e}.down_proj" for n in (0, 1) for e in range(3)]
    assert scan.provenance["refined"] == refined
    selection = scan.select(50)
    assert [module.name for module in selection.modules] == ["model.layers.0.mlp.experts.down_proj"]
    assert selection.groups[0].undecided
