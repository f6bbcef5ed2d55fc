"""A scan of one checkpoint minus another is that of the matrices subtracted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import spectrum_fast as sf
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.errors import JournalError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.scanning.content import is_scan_of
from spectrum_fast.scanning.journal import journal_path
from spectrum_fast.use.cli.app import app as commands

from support import matrices
from support.gguf_files import LLAMA, random_tensor, write_gguf

Q, K, UP = (f"model.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"))


def save(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    path.mkdir(parents=True, exist_ok=True)
    save_file({f"{name}.weight": tensor.clone() for name, tensor in tensors.items()}, path / "model.safetensors")
    return str(path)


def exact_snr(difference: torch.Tensor) -> float | None:
    """By LAPACK's float64 SVD of the difference in float64."""
    return sf.spectrum(difference, criterion="mp", method="svd").snr


def planted(rows: int, columns: int, rank: int, seed: int) -> torch.Tensor:
    """Noise of a fine-tuning and an update of this rank whose weakest direction stands out of it."""
    generator = torch.Generator().manual_seed(seed)
    noise = 1e-3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    edge = 1e-3 * (rows**0.5 + columns**0.5)
    left, right = (
        torch.linalg.qr(torch.randn(n, rank, generator=generator, dtype=torch.float64))[0] for n in (rows, columns)
    )
    return noise + left * (edge * torch.linspace(2, 6, rank, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("shape", [(96, 160), (300, 260)], ids=["svd", "band"])
def test_a_planted_update_is_found_exactly(tmp_path: Path, shape: tuple[int, int]) -> None:
    base = matrices.trained_like(*shape, seed=1).float()
    tuned = base + planted(*shape, 4, seed=2).float()
    scan = sf.scan(save(tmp_path / "tuned", {Q: tuned}), minus=save(tmp_path / "base", {Q: base}))
    module = scan.module(Q)
    difference = tuned.double() - base.double()
    expected = torch.linalg.svdvals(difference).numpy()
    assert module.singular_values is not None
    error = abs(module.singular_values.values - expected)
    assert (error <= module.singular_values.bounds + 2.0**-24 * expected[0]).all()
    assert scan.criterion == "mp"
    assert module.mp_rank == module.n_signal == 4
    assert module.snr == pytest.approx(exact_snr(difference), rel=1e-4)
    assert scan.provenance["minus"]["model"] == "base"


def test_formats_may_differ(tmp_path: Path) -> None:
    weight = matrices.trained_like(256, 256, seed=3).float()
    scale = torch.full((2, 2), 1 / 64)
    codes = (weight * 64).clamp(-400, 400).to(torch.float8_e4m3fn)
    tuned = (weight + planted(256, 256, 3, seed=4).float()).to(torch.bfloat16)
    (tmp_path / "base").mkdir()
    save_file({f"{Q}.weight": codes, f"{Q}.weight_scale_inv": scale}, tmp_path / "base" / "model.safetensors")
    scan = sf.scan(save(tmp_path / "tuned", {Q: tuned}), minus=str(tmp_path / "base"))
    expected = exact_snr(tuned.double() - codes.double() / 64)
    assert scan.module(Q).snr == pytest.approx(expected, rel=1e-4)
    assert "BF16 minus FP8" in scan.module(Q).note


def test_gguf_minus_safetensors_of_the_same_numbers_is_zero(tmp_path: Path) -> None:
    tensors = [
        random_tensor(f"blk.0.{kind}.weight", "Q8_0", (64, 64), seed=seed)
        for seed, kind in enumerate(["attn_q", "ffn_up"])
    ]
    (tmp_path / "model.gguf").write_bytes(write_gguf(tensors, LLAMA))
    decoded = {module.name: module for module in sf.scan(str(tmp_path / "model.gguf")).modules}
    assert set(decoded) == {Q, UP}
    from spectrum_fast.measure.ops.decode import decode_weight
    from spectrum_fast.read.checkpoint import open_checkpoint
    from spectrum_fast.read.stream.loader import load_weight
    from spectrum_fast.scanning.plan import plan_scan

    weights = {}
    for plan in plan_scan(open_checkpoint(str(tmp_path / "model.gguf"))).weights:
        loaded = load_weight(plan)
        weights[plan.name] = decode_weight(plan, loaded.main, loaded.companions).clone()
    scan = sf.scan(str(tmp_path / "model.gguf"), minus=save(tmp_path / "plain", weights))
    assert [module.s_max for module in scan.modules] == [0.0, 0.0]


def test_what_only_one_has_or_in_another_shape_is_named(tmp_path: Path) -> None:
    small = matrices.gaussian(20, 30).float()
    tuned = save(tmp_path / "tuned", {Q: small + 1, K: small + 2, "score": small})
    base = save(tmp_path / "base", {Q: small, K: small[:10], "lm_head": small})
    scan = sf.scan(tuned, minus=base)
    assert [module.name for module in scan.modules] == [Q]
    assert [(failure.name, failure.kind) for failure in scan.failures] == [(K, "shape")]
    assert "(10, 30)" in scan.failures[0].message
    assert "(20, 30)" in scan.failures[0].message
    assert {entry.name: entry.reason for entry in scan.skipped} == {
        "score": "not in the base, base",
        "lm_head": "in the base alone, base",
    }


def test_checkpoints_without_a_module_in_common_are_refused(tmp_path: Path) -> None:
    small = matrices.gaussian(20, 30).float()
    with pytest.raises(UsageError, match=r"tuned minus base: expected modules of the same names.*q_proj.*up_proj"):
        sf.scan(save(tmp_path / "tuned", {Q: small}), minus=save(tmp_path / "base", {UP: small}))


def test_equal_matrices_whose_bases_differ_are_both_scored(tmp_path: Path) -> None:
    tuned, first, second = (matrices.gaussian(40, 40, seed=seed).float() for seed in range(3))
    scan = sf.scan(
        save(tmp_path / "tuned", {Q: tuned, K: tuned.clone()}), minus=save(tmp_path / "base", {Q: first, K: second})
    )
    for name, base in ((Q, first), (K, second)):
        assert scan.module(name).s_max == pytest.approx(
            float(torch.linalg.svdvals((tuned - base).double())[0]), rel=1e-5
        )


@pytest.mark.parametrize("shape", [(1100, 300), (300, 1100)], ids=["tall", "wide"])
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float64, torch.float16)], ids=str)
def test_large_matrices_are_subtracted_block_by_block(
    tmp_path: Path, shape: tuple[int, int], dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    tuned, base = (matrices.trained_like(*shape, seed=5 + place).to(dtype) for place, dtype in enumerate(dtypes))
    paths = [save(tmp_path / name, {UP: one}) for name, one in (("tuned", tuned), ("base", base))]
    scan = sf.scan(paths[0], minus=paths[1], buffer_gib=0.001)
    assert "blocks" in scan.module(UP).note
    assert scan.module(UP).snr == pytest.approx(exact_snr(tuned.double() - base.double()), rel=1e-4)


def test_the_scan_file_and_its_journal_know_the_base(tmp_path: Path) -> None:
    own, first, second = (matrices.gaussian(30, 30, seed=seed).float() for seed in range(3))
    tuned = save(tmp_path / "tuned", {Q: own})
    bases = [save(tmp_path / name, {Q: weight}) for name, weight in (("one", first), ("other", second))]
    out = tmp_path / "scan.json"
    made = sf.scan(tuned, minus=bases[0], out=out, journal=journal_path(out))
    again = load_scan(out)
    assert again == made
    assert again.provenance["minus"]["fingerprint"] == again.provenance["fingerprint"]  # names and sizes are the same
    assert again.provenance["minus"]["content"] != again.provenance["content"]
    assert is_scan_of(again, tuned)
    assert not is_scan_of(again, bases[0])
    journal = tmp_path / "kept"
    sf.scan(tuned, minus=bases[0], journal=journal)
    with pytest.raises(JournalError, match="minus"):
        sf.scan(tuned, minus=bases[1], journal=journal)
    assert sf.scan(tuned, minus=bases[0], journal=journal) == made


def exact_angles(base: torch.Tensor, difference: torch.Tensor, rank: int) -> list[float]:
    """Largest and mean square cosine, of left and of right subspaces, by LAPACK's float64 SVD."""
    (u_base, _, vh_base), (u, _, vh) = (
        torch.linalg.svd(one.double(), full_matrices=False) for one in (base, difference)
    )
    found = []
    for products in (u_base[:, :rank].T @ u[:, :rank], vh_base[:rank] @ vh[:rank].T):
        cosines = torch.linalg.svdvals(products)
        found += [float(cosines[0]), float((cosines**2).mean())]
    return found


def angles_of(module: ModuleScore) -> list[float | None]:
    return [module.left_cosine, module.left_overlap, module.right_cosine, module.right_overlap]


@pytest.mark.parametrize("options", [{}, {"precision": "float64"}], ids=["together", "one by one"])
@pytest.mark.parametrize("shape", [(60, 90), (400, 260)], ids=["svd", "krylov"])
def test_angles_between_what_changed_and_its_base(
    tmp_path: Path, shape: tuple[int, int], options: dict[str, Any]
) -> None:
    base = matrices.trained_like(*shape, seed=1).double()
    u, _, vh = torch.linalg.svd(base, full_matrices=False)
    noise = 1e-3 * matrices.gaussian(*shape, seed=2).double()
    size = 1e-2 * (shape[0] ** 0.5 + shape[1] ** 0.5) * torch.linspace(2, 6, 4, dtype=torch.float64)
    places = {Q: [0, 1, 2, 3], K: [40, 41, 42, 43], UP: [0, 1, 40, 41]}
    tuned = {name: (base + noise + u[:, where] * size @ vh[where]).float() for name, where in places.items()}
    scan = sf.scan(
        save(tmp_path / "tuned", tuned),
        minus=save(tmp_path / "base", dict.fromkeys(places, base.float())),
        angles=True,
        out=tmp_path / "scan.json",
        **options,
    )
    for name, expected in ((Q, 1.0), (K, 0.0), (UP, 0.5)):
        module = scan.module(name)
        assert module.mp_rank == 4
        exact = exact_angles(base.float(), tuned[name].double() - base.float().double(), 4)
        assert angles_of(module) == pytest.approx(exact, abs=1e-3)
        assert module.left_overlap == pytest.approx(expected, abs=0.05)
        assert module.right_overlap == pytest.approx(expected, abs=0.05)
    assert angles_of(load_scan(tmp_path / "scan.json").module(UP)) == angles_of(scan.module(UP))
    frame = scan.to_frame()
    assert frame.loc[K, "right_cosine"] == scan.module(K).right_cosine
    shown = CliRunner().invoke(commands, ["show", str(tmp_path / "scan.json"), UP]).stdout
    assert f"angles to base  left: largest cosine {scan.module(UP).left_cosine:.3f}" in " ".join(shown.split("\n"))


def test_angles_where_there_is_no_subspace(tmp_path: Path) -> None:
    small = matrices.gaussian(40, 60).float()
    tuned = save(tmp_path / "tuned", {Q: small, K: small + 10, UP: small + 1})
    base = save(tmp_path / "base", {Q: small, K: torch.zeros(40, 60), UP: torch.full((40, 60), torch.nan)})
    scan = sf.scan(tuned, minus=base, angles=True)
    assert [failure.name for failure in scan.failures] == [UP]
    assert {module.name: angles_of(module) for module in scan.modules} == {Q: [None] * 4, K: [None] * 4}
    assert "left_cosine" not in (scan.save(tmp_path / "scan.json") or (tmp_path / "scan.json").read_text())
    with pytest.raises(UsageError, match="angles: expected a base"):
        sf.scan(tuned, angles=True)
