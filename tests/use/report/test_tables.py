"""Tables and progress lines: what they say, and that they fit."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from spectrum_fast import Scan
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.scanning import ScanProgress
from spectrum_fast.use.report.comparison import comparison_table
from spectrum_fast.use.report.progress import ScanMeter, format_bytes, format_line
from spectrum_fast.use.report.table import scan_table
from spectrum_fast.words import list_some


def render(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def score(name: str, snr: float | None) -> ModuleScore:
    return ModuleScore(
        name=name,
        type=module_type(name),
        snr=snr,
        noise_free=snr is None,
        shape=(28672, 8192),
        error_bound=2e-5,
        method="band-float32",
    )


def large_model(layers: int = 80) -> Scan:
    """The 560 matrices of a Llama of 70B, and its tables."""
    types = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *(f"self_attn.{x}_proj" for x in "kqvo")]
    modules = [
        score(f"model.layers.{i}.{name}", 1e-3 * (i + 1) * 10**place)
        for i in range(layers)
        for place, name in enumerate(types)
    ]
    return Scan("llama", "spectrum", (score("lm_head", None), score("model.embed_tokens", 2.0), *modules))


def test_a_large_model_fits_80_columns() -> None:
    scan = large_model()
    lines = render(scan_table(scan, scan.select(25)))
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert "lm_head             always  28672x8192    inf     inf    inf" in lines
    assert "mlp.down_proj        20/80  28672x8192   0.08    0.04  0.001" in lines
    assert "inf: 1 noise-free module, no singular value below the threshold" in lines
    assert "largest relative error bound 2.0e-05; 562 by band-float32" in lines


def test_a_wide_table_names_modules() -> None:
    scan = large_model()
    lines = render(scan_table(scan, scan.select(25), wide=True), width=140)
    assert any(line.endswith("model.layers.79.mlp.down_proj") for line in lines)
    assert max(map(len, lines)) <= 140


def test_experts_share_a_line() -> None:
    modules = tuple(score(f"model.layers.{i}.mlp.experts.{e}.up_proj", 1.0 + e) for i in range(4) for e in range(256))
    scan = Scan("moe", "spectrum", modules)
    lines = render(scan_table(scan, scan.select(50)))
    assert len(lines) < 10
    assert any(line.startswith("mlp.experts.*.up_proj  512/1024") for line in lines)


def test_without_a_selection_modules_are_counted() -> None:
    lines = render(scan_table(large_model(3)))
    assert lines[0] == "llama: 23 modules scored, criterion spectrum"
    assert lines[2].split() == ["type", "modules", "shape", "best", "median", "worst"]


def test_long_lists_are_cut_and_everything_is_counted() -> None:
    scan = replace(
        large_model(2),
        failures=tuple(ScanFailure(name=f"bad.{i}", kind="values", message="NaN") for i in range(30)),
        ties={f"copy.{i}": "lm_head" for i in range(9)},
        skipped=(SkippedTensor("a", "buffer"), SkippedTensor("b", "1-D"), SkippedTensor("c", "1-D")),
        provenance={"notes": ["pytorch_model.bin was passed over"]},
    )
    text = " ".join(render(scan_table(scan)))
    assert "FAILED, no score: 30 tensors: bad.0, bad.1, bad.2, bad.3 and 26 more" in text
    assert "equal tensors, scored once: copy.0 = lm_head, copy.1 = lm_head," in text
    assert "and 5 more" in text
    assert "not scored: 2 x 1-D, 1 x buffer" in text
    assert "note: pytorch_model.bin was passed over" in text


def test_a_scan_without_modules_has_no_table() -> None:
    scan = Scan("m", "spectrum", (), failures=(ScanFailure(name="bad", kind="values", message="NaN"),))
    assert render(scan_table(scan)) == [
        "m: 0 modules scored, criterion spectrum",
        "",
        "FAILED, no score: 1 tensor: bad",
    ]


def test_names_are_text_and_no_markup() -> None:
    scan = Scan("[bold]m[/]", "spectrum", (score("[red]x[/]", 1.0), score(":smile:.y", 2.0)))
    lines = render(scan_table(scan, wide=True), width=140)
    assert lines[0].startswith("[bold]m[/]:")
    assert any(line.startswith("[red]x[/]") and line.endswith("  [red]x[/]") for line in lines)
    assert any(line.startswith(":smile:.y") for line in lines)


def test_comparison_without_common_modules() -> None:
    a, b = Scan("a", "spectrum", (score("x", 1.0),)), Scan("b", "spectrum", (score("y", 1.0),))
    lines = render(comparison_table(a.compare(b)))
    assert lines[2] == "0 modules in both, 1 only in a, 1 only in b"
    assert lines[-1] == "nothing to compare: no module has a score in both"


def test_comparison_names_the_largest_differences_first() -> None:
    a = large_model(8)
    changed = [replace(module, snr=module.snr and module.snr * (1 + i / 100)) for i, module in enumerate(a.modules)]
    lines = render(comparison_table(a.compare(replace(a, modules=tuple(changed)))))
    start = next(i for i, line in enumerate(lines) if line.startswith("largest differences"))
    assert lines[start + 2].startswith("model.layers.7.self_attn.o_proj")
    assert len(lines) - start == 12
    assert max(map(len, lines)) <= 80


def step(done: int, total: int = 10, seconds: float = 2.0, name: str = "x") -> ScanProgress:
    return ScanProgress(name, done, total, done * 10**9, total * 10**9, seconds)


def test_progress_lines() -> None:
    assert format_line(step(0)) == "scanned 0/10 modules, 0 B of 10 GB in 2.0 s"
    assert (
        format_line(step(4, seconds=12.0)) == "scanned 4/10 modules, 4 GB of 10 GB in 12 s, 333 MB/s, about 18 s left"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (217_088, "217 kB"), (141e9, "141 GB"), (2.5e15, "2.5e+03 TB")],
)
def test_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(("quiet", "expected"), [(False, "scanned 10 modules, 10 GB in 20 s\n"), (True, "")])
def test_the_meter_outside_a_terminal_says_how_it_ended(quiet: bool, expected: str) -> None:
    stream = io.StringIO()
    with ScanMeter(Console(file=stream, width=80), quiet=quiet) as meter:
        for done in range(11):
            meter(step(done, seconds=2.0 * done))
    assert stream.getvalue() == expected


def interrupt_after(meter: ScanMeter, last: ScanProgress) -> None:
    meter(last)
    raise KeyboardInterrupt


def test_the_meter_of_an_interrupted_scan_claims_nothing() -> None:
    stream = io.StringIO()
    meter = ScanMeter(Console(file=stream))
    with pytest.raises(KeyboardInterrupt), meter:
        interrupt_after(meter, step(3))
    assert stream.getvalue() == ""


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", ["model.layers.10.self_attn.k_proj", "[/] " + "very.long." * 20])
def test_the_bar_keeps_to_one_line(name: str, width: int) -> None:
    stream = io.StringIO()
    with ScanMeter(Console(file=stream, width=width, force_terminal=True, color_system=None)) as meter:
        meter(ScanProgress(name, 45_031, 45_032, 668_999_000_000, 669_000_000_000, 100.0))
        meter._bar.refresh()  # type: ignore[union-attr]
        frame = stream.getvalue()
    last = frame.rpartition("\x1b[2K")[2].rstrip("\n")
    assert "\n" not in last
    assert len(last) <= width
    assert "1B" not in frame.replace("[1A", "")  # one line up is the most that is drawn over
    if width >= 80:
        assert "45031/45032" in last
        assert "[/]" in name or last.rstrip().endswith("10.self_attn.k_proj")


def test_short_lists_are_whole() -> None:
    assert list_some(["a", "b"], 2) == "a, b"


def test_long_names_break_behind_their_dots() -> None:
    long = "vision_tower.embeddings.position_embedding"
    scan = Scan("m", "spectrum", (score(long, 1.0), score("model.layers.0.mlp.down_proj", 2.0)))
    for width, expected in ((100, [long]), (80, ["vision_tower.embeddings.", "position_embedding"])):
        lines = render(scan_table(scan, scan.select()), width)
        place = next(place for place, line in enumerate(lines) if line.startswith("vision"))
        assert [line.split("  ")[0] for line in lines[place : place + len(expected)]] == expected
