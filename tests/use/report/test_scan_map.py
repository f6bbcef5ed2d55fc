"""The map of ranks in a terminal: what it shades, how it folds, what it says without Unicode."""

from __future__ import annotations

import pytest

from spectrum_fast.errors import ScanFileError
from spectrum_fast.use.report.scan_map import scan_map

from support import scans
from support.terminal import render


def test_the_shade_is_the_rank_within_the_type() -> None:
    scan = scans.dense_model(layers=8, spectra=False)
    shown = scan_map(scan, scan.select(25))
    assert shown is not None
    lines = render(shown)
    assert lines[1] == "rank within its type by layer: ▁ last, █ first"
    row = next(line for line in lines if line.startswith("mlp.up_proj")).removeprefix("mlp.up_proj").strip()
    scores = [module.snr or 0.0 for module in scan.by_type()["mlp.up_proj"]]
    ranked = sorted(range(8), key=lambda layer: -scores[layer])
    for place, layer in enumerate(ranked):
        assert row[layer] == "▁▂▃▄▅▆▇█"[min(7, int(8 * (1 - place / 7)))]
    extremes = next(line for line in lines[10:] if line.startswith("mlp.up_proj"))
    assert ", ".join(map(str, ranked[:3])) in extremes
    assert ", ".join(map(str, ranked[:-4:-1])) in extremes
    assert max(map(len, lines)) <= 80


def test_layers_share_columns_where_there_are_too_many() -> None:
    shown = scan_map(scans.dense_model(layers=200, spectra=False))
    assert shown is not None
    lines = render(shown)
    assert lines[1].endswith("4 layers a column")
    assert max(map(len, lines)) <= 80
    assert len(lines[2]) == len("self_attn.k_proj") + 2 + 50
    narrow = render(shown, width=40)
    assert max(map(len, narrow[:10])) <= 80


def test_experts_are_named_by_layer_and_number() -> None:
    scan = scans.experts_model()
    shown = scan_map(scan)
    assert shown is not None
    lines = render(shown)
    best = max(
        (module for module in scan.modules if module.type.endswith(".up_proj") and ".experts." in module.type),
        key=lambda module: module.rank_value,
    )
    parts = best.name.split(".")
    row = next(line for line in lines[12:] if line.startswith("mlp.experts.*.up_proj"))
    assert f"{parts[2]}:{parts[5]}" in row
    assert any("best layer:expert" in line for line in lines)


def test_plain_letters_where_there_is_no_unicode() -> None:
    shown = scan_map(scans.dense_model(layers=8, spectra=False))
    assert shown is not None
    lines = render(shown, encoding="ascii")
    assert lines[1] == "rank within its type by layer: . last, @ first"
    assert all(line.isascii() for line in lines)


def test_no_map_without_two_layers() -> None:
    assert scan_map(scans.named_model("lm_head", "model.layers.0.mlp.up_proj")) is None


def test_names_cannot_move_the_cursor() -> None:
    with pytest.raises(ScanFileError, match="expected printable names"):
        scans.named_model(*(f"model.layers.{i}.\x1b[2Jx\u202ey" for i in range(3)))
