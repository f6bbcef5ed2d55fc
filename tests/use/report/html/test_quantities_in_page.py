"""The page is given the numbers of other criteria, and the tails that they are fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from spectrum_fast.measure.scoring.criteria import quantities_of
from spectrum_fast.use.report.html.payload import build_payload, make_labels

from support import matrices

NAMES = ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tensors = {f"{name}.weight": matrices.trained_like(60, 90, seed=place).float() for place, name in enumerate(NAMES)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_with_all_singular_values(model: Path) -> None:
    scan = sf.scan(model, spectra=True)
    (page,) = build_payload([scan], top_percent=25, labels=["a"])["scans"]
    for name, column in page["quantities"].items():
        expected = [quantities_of(scan.module(module))[name] for module in page["name"]]
        assert column == pytest.approx(expected, rel=1e-6)
    assert {"kappa", "stable-rank", "alpha", "effective-rank", "energy"} <= page["quantities"].keys()
    for module, (ranks, values, (alpha, least, size)) in zip(page["name"], page["tails"], strict=True):
        stored = scan.module(module).singular_values.values  # type: ignore[union-attr]
        assert (ranks[0], ranks[-1]) == (1, 60)
        assert values == pytest.approx([stored[int(rank) - 1] for rank in ranks], rel=1e-6)
        assert alpha == pytest.approx(page["quantities"]["alpha"][page["name"].index(module)], rel=1e-6)
        assert (stored >= least * (1 - 1e-6)).sum() == size


def test_without_them_and_of_a_difference(model: Path, tmp_path: Path) -> None:
    (page,) = build_payload([sf.scan(model)], top_percent=25, labels=["a"])["scans"]
    assert page["tails"] is None
    assert "alpha" not in page["quantities"]
    zero = {f"{name}.weight": torch.zeros(60, 90) for name in NAMES}
    (tmp_path / "base").mkdir()
    save_file(zero, tmp_path / "base" / "model.safetensors")
    difference = sf.scan(model, minus=str(tmp_path / "base"))
    assert make_labels([difference], ["x"]) == [f"{model.name} minus base"]
    (page,) = build_payload([difference], top_percent=25, labels=["a"])["scans"]
    assert page["model"] == f"{difference.model} minus base"  # its heading
    assert repr(difference).startswith(f"<Scan of {difference.model} minus base: 2 modules by mp")


def test_base_and_tuned_in_one_figure(tmp_path: Path, open_report) -> None:
    names = [name.replace("up", kind) for name in NAMES for kind in ("up", "gate", "down", "q")]
    weights = {f"{name}.weight": matrices.trained_like(60, 90, seed=place).float() for place, name in enumerate(names)}
    for folder, factor in (("base", 1), ("tuned", 2)):
        (tmp_path / folder).mkdir()
        save_file({name: factor * one for name, one in weights.items()}, tmp_path / folder / "model.safetensors")
    base, tuned = (sf.scan(tmp_path / folder, spectra=True) for folder in ("base", "tuned"))
    page = open_report(tuned, base)
    page.run("(name) => spectrumReport.pick(spectrumReport.current().byName.get(name), false)", NAMES[1])
    traces = "() => document.querySelector('#spectrum .plot').data.map(({ type, mode, x }) => [type, mode ?? '', x])"

    def shown(view: str) -> tuple[list[list], str]:
        page.page.click(f"#spectrum button[data-value='{view}']")
        page.settle()
        return page.run(traces), page.page.locator("#spectrum .note").inner_text()

    for view in ("bulk", "all"):
        (bars, _, outline), note = shown(view)
        assert (bars[0], outline[:2]) == ("bar", ["scatter", "lines"])
        histogram = base.module(NAMES[1]).histogram
        assert histogram is not None
        last = outline[2][-1] if view == "bulk" else 10 ** outline[2][-1]
        assert last == pytest.approx(histogram.end, rel=1e-5)
        assert "Outline: base, whose Marchenko–Pastur edge is " in note
    found, note = shown("tail")
    assert [trace[:2] for trace in found] == [["scatter", "markers"], ["scatter", "lines"]] * 2
    assert found[2][2][0] == pytest.approx(4 * found[0][2][0], rel=1e-4)  # eigenvalues of what is twice as large
    exponents = [quantities_of(scan.module(NAMES[1]))["alpha"] for scan in (tuned, base)]
    assert all(f"alpha = {exponent:.4g}"[:11] in note for exponent in exponents)
    facts = page.page.locator("dl.facts").first.inner_text()
    assert all(f"\n{name}\n" in facts for name in ("kappa", "stable-rank", "effective-rank", "alpha", "energy"))
    page.page.select_option("#spectrum select", "-1")
    assert len(shown("tail")[0]) == 2
    page.show(base)  # what was shown goes beside it only where that was asked for
    assert page.page.locator("#spectrum select").input_value() == "-1"
