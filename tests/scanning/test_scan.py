"""Whole scans of real checkpoints, held to float64 truth."""

from __future__ import annotations

import itertools
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from bench.make_checkpoint import write_checkpoint
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.errors import (
    BackendUnavailableError,
    CheckpointError,
    SelectionError,
    SpectrumFastError,
    UsageError,
)
from spectrum_fast.scanning import ScanProgress

from support import matrices, truth

TOLERANCE = 1e-4


def write(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, object] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def weight(seed: int, rows: int = 24, columns: int = 40) -> torch.Tensor:
    return matrices.trained_like(rows, columns, seed=seed).to(torch.float32)


def layers(count: int, start: int = 0) -> dict[str, torch.Tensor]:
    return {f"model.layers.{i}.mlp.up_proj.weight": weight(i) for i in range(start, start + count)}


def assert_exact(scan: sf.Scan, expected_by_name: dict[str, truth.Truth]) -> None:
    for module in scan.modules:
        assert module.parameter is not None
        assert module.error_bound is not None
        expected = expected_by_name[module.parameter]
        if module.noise_free:
            assert expected.n_noise == 0
            continue
        assert module.snr == pytest.approx(expected.snr, rel=TOLERANCE)
        assert module.error_bound <= TOLERANCE
        assert (module.n_noise, module.n_signal) == (expected.n_noise, len(expected.values) - expected.n_noise)


def reasons(scan: sf.Scan) -> dict[str, str]:
    return {entry.name: entry.reason for entry in scan.skipped}


# --- sources -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_truth(llama: Path) -> dict[str, truth.Truth]:
    tensors = load_file(llama / "model.safetensors")
    return {name: truth.exact(tensor) for name, tensor in tensors.items() if tensor.dim() == 2}


@pytest.mark.parametrize("method", ["auto", "band", "svd"])
def test_every_score_is_the_float64_one(llama: Path, llama_truth: dict[str, truth.Truth], method: str) -> None:
    scan = sf.scan(llama, method=method)
    assert {module.parameter for module in scan.modules} == set(llama_truth)
    assert_exact(scan, llama_truth)
    assert not scan.failures
    assert {module.method for module in scan.modules} >= {"svd-float64" if method != "band" else "band-float32"}


def test_shards_file_and_folder_give_the_same_scores(llama: Path, tmp_path: Path) -> None:
    sharded = write_checkpoint(tmp_path / "sharded", like="llama-3-8b", layers=2, scale=16, shard_gib=0.002)
    assert len(sharded.files) > 2
    whole = sf.scan(llama)
    assert sf.scan(sharded.path).modules == whole.modules
    assert sf.scan(llama / "model.safetensors").modules == whole.modules
    assert sf.scan(str(llama)).model == llama.name


def test_modules_and_failures_come_in_natural_order(tmp_path: Path) -> None:
    tensors = layers(12)
    tensors["model.layers.9.mlp.up_proj.weight"][0, 0] = torch.nan
    tensors["model.layers.10.mlp.up_proj.weight"][0, 0] = torch.inf
    tensors["model.layers.11.mlp.up_proj.weight"] = tensors["model.layers.11.mlp.up_proj.weight"].to(torch.int8)
    scan = sf.scan(write(tmp_path, tensors))
    assert [module.name.split(".")[2] for module in scan.modules] == [str(i) for i in range(9)]
    assert [failure.name.split(".")[2] for failure in scan.failures] == ["9", "10", "11"]


# --- ties --------------------------------------------------------------------------------------------------------


def test_copies_are_scored_once_and_said_so(tmp_path: Path) -> None:
    table = weight(50)
    tensors = {"model.embed_tokens.weight": table, "lm_head.weight": table.clone(), **layers(2)}
    scan = sf.scan(write(tmp_path, tensors))
    assert scan.ties == {"lm_head": "model.embed_tokens"}
    assert [module.name for module in scan.modules].count("model.embed_tokens") == 1
    assert "lm_head" not in {module.name for module in scan.modules}
    assert "lm_head" in scan.select(50).always


def test_equal_layers_of_a_merged_model_are_read_once_and_compete_each(tmp_path: Path) -> None:
    distinct = [weight(60 + i) for i in range(4)]
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": distinct[i % 4].clone() for i in range(8)}
    steps: list[ScanProgress] = []
    scan = sf.scan(write(tmp_path, tensors), progress=steps.append, top_percent=None)
    assert (scan.ties, steps[-1].total, len(scan.modules)) == ({}, 4, 8)
    for i in range(4):
        first, copy = (scan.module(f"model.layers.{n}.mlp.up_proj") for n in (i, i + 4))
        assert copy.note == f"{first.note}; the same bytes as {first.name}, read once"
        assert replace(copy, name=first.name, parameter=first.parameter, note=first.note) == first
    assert len(scan.select(100).modules) == 8
    best = max(range(4), key=lambda i: scan.module(f"model.layers.{i}.mlp.up_proj").rank_value)
    names = {module.name for module in scan.select(25).modules}
    assert names == {f"model.layers.{n}.mlp.up_proj" for n in (best, best + 4)}


def test_equal_layers_at_the_cut_are_refined_together(tmp_path: Path) -> None:
    path = write(tmp_path, {f"model.layers.{i}.mlp.up_proj.weight": weight(5).clone() for i in range(4)})
    scan = sf.scan(path, top_percent=50)
    assert scan.provenance["refined"] == [f"model.layers.{i}.mlp.up_proj" for i in range(4)]
    assert len({module.snr for module in scan.modules}) == 1
    assert scan.select(50).groups[0].undecided


def test_a_copy_of_what_cannot_be_scored_fails_too(tmp_path: Path) -> None:
    broken = weight(5)
    broken[0, 0] = torch.nan
    scan = sf.scan(write(tmp_path, {"a.0.q.weight": broken, "a.1.q.weight": broken.clone(), **layers(1)}))
    assert [failure.name for failure in scan.failures] == ["a.0.q", "a.1.q"]
    assert scan.failures[1].message.endswith("(the same bytes as a.0.q, read once)")


def test_a_head_that_the_configuration_unties_competes_for_itself(tmp_path: Path) -> None:
    table = weight(50)
    tensors = {"model.embed_tokens.weight": table, "lm_head.weight": table.clone(), **layers(2)}
    scan = sf.scan(write(tmp_path, tensors, {"tie_word_embeddings": False}))
    assert scan.ties == {}
    assert scan.module("lm_head").snr == scan.module("model.embed_tokens").snr


def test_a_copy_of_an_excluded_tensor_is_scored_itself(tmp_path: Path) -> None:
    table = weight(51)
    path = write(tmp_path, {"model.embed_tokens.weight": table, "lm_head.weight": table.clone(), **layers(2)})
    for options in ({"exclude": ["*embed_tokens"]}, {"include": ["lm_head"]}):
        scan = sf.scan(path, **options)
        assert scan.ties == {}
        assert scan.module("lm_head").snr == pytest.approx(truth.exact(table).snr, rel=TOLERANCE)


def test_a_head_that_is_tied_by_the_configuration_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path, {"model.embed_tokens.weight": weight(1)}, {"tie_word_embeddings": True})
    notes = sf.scan(path).provenance["notes"]
    assert [note for note in notes if "lm_head" in note] == ["lm_head is tied to model.embed_tokens and is scored once"]


def test_equal_norms_are_not_ties(tmp_path: Path) -> None:
    tensors = {f"model.layers.{i}.norm.weight": torch.ones(8) for i in range(3)} | layers(1)
    scan = sf.scan(write(tmp_path, tensors), include_norms=True)
    assert not scan.ties
    assert sum(module.type == "norm" for module in scan.modules) == 3


def test_two_tensors_for_one_module_are_refused_before_the_scan(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.b": weight(1), "a.b.weight": weight(2), "c.weight": weight(3)})
    steps: list[ScanProgress] = []
    with pytest.raises(CheckpointError, match=r"one tensor for module 'a\.b'.*exclude"):
        sf.scan(path, progress=steps.append)
    assert not steps
    assert [module.name for module in sf.scan(path, exclude=["a.b"]).modules] == ["c"]


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_values_that_are_no_numbers_are_a_named_failure(tmp_path: Path, bad: float, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in layers(4).items()}
    tensors["model.layers.2.mlp.up_proj.weight"][5, 7] = bad
    scan = sf.scan(write(tmp_path, tensors))
    (failure,) = scan.failures
    assert (failure.name, failure.kind, failure.shape) == ("model.layers.2.mlp.up_proj", "values", (24, 40))
    assert "model.layers.2.mlp.up_proj.weight in model.safetensors" in failure.message
    assert "1 of 960" in failure.message
    assert len(scan.modules) == 3
    assert_exact(
        scan, {module.parameter or "": truth.exact(tensors[module.parameter or ""]) for module in scan.modules}
    )
    with pytest.raises(SelectionError, match=r"incomplete.*model\.layers\.2\.mlp\.up_proj"):
        scan.select(50)
    selection = scan.select(50, allow_incomplete=True)
    assert selection.failed == ("model.layers.2.mlp.up_proj",)
    assert "model.layers.2.mlp.up_proj" not in selection.names


def test_codes_are_refused_by_name_and_never_scored(tmp_path: Path) -> None:
    """Codes without their scales, and layouts that are not decoded; those that are: test_scan_quantised.py."""
    codes = torch.randint(-8, 8, (16, 24), dtype=torch.int8)
    tensors = {
        "model.layers.0.mlp.up_proj.weight": weight(0),
        "model.layers.1.mlp.up_proj.weight": weight(1).to(torch.float8_e4m3fn),
        "model.layers.2.mlp.up_proj.weight": codes,
        "model.layers.3.mlp.up_proj.qweight": codes.to(torch.int32),
        "model.layers.3.mlp.up_proj.scales": torch.ones(2, 24, dtype=torch.float16),
        "model.layers.3.mlp.up_proj.qzeros": codes.to(torch.int32),
        "model.layers.4.mlp.experts.down_proj_blocks": torch.zeros(2, 4, 3, 16, dtype=torch.uint8),
        "model.layers.5.mlp.up_proj.weight_scale_inv": torch.ones(2, 2),
        "model.layers.6.mlp.up_proj.weight": weight(6),
        "model.layers.6.mlp.up_proj.weight_scale": torch.ones(24, 1),
    }
    scan = sf.scan(write(tmp_path, tensors))
    assert [module.name for module in scan.modules] == ["model.layers.0.mlp.up_proj"]
    failed = {failure.name: failure for failure in scan.failures}
    assert set(failed) == {
        "model.layers.1.mlp.up_proj",
        "model.layers.2.mlp.up_proj",
        "model.layers.3.mlp.up_proj.qweight",
        "model.layers.4.mlp.experts.down_proj_blocks",
        "model.layers.5.mlp.up_proj.weight_scale_inv",
        "model.layers.6.mlp.up_proj",
    }
    assert {failure.kind for failure in failed.values()} == {"unsupported"}
    for name, failure in failed.items():
        assert name in failure.message
    assert "FP8" in failed["model.layers.1.mlp.up_proj"].message
    assert "MXFP4" in failed["model.layers.4.mlp.experts.down_proj_blocks"].message
    assert "down_proj_scales" in failed["model.layers.4.mlp.experts.down_proj_blocks"].message


def test_nothing_but_failures_is_a_scan_without_modules(tmp_path: Path) -> None:
    scan = sf.scan(write(tmp_path, {"a.weight": torch.zeros(4, 4, dtype=torch.int8)}))
    assert (scan.modules, len(scan.failures)) == ((), 1)


# --- what is left out --------------------------------------------------------------------------------------------


def test_what_is_no_matrix_is_skipped_with_its_reason(tmp_path: Path) -> None:
    tensors = layers(1) | {
        "norm.weight": torch.randn(8),
        "fc.bias": torch.randn(8),
        "embeddings.position_ids": torch.arange(8).reshape(1, 8),
        "rotary.inv_freq": torch.randn(8),
        "conv.weight": torch.randn(4, 3, 2, 2),
        "logit_scale": torch.tensor(1.0),
        "empty.weight": torch.empty(0, 4),
        "counts": torch.arange(4),
        "mlp.experts.down_proj_bias": torch.randn(4, 8),
    }
    scan = sf.scan(write(tmp_path, tensors))
    assert [module.name for module in scan.modules] == ["model.layers.0.mlp.up_proj"]
    assert not scan.failures
    assert reasons(scan) == {
        "norm": "1-D (norm or bias)",
        "fc.bias": "1-D (norm or bias)",
        "embeddings.position_ids": "buffer",
        "rotary.inv_freq": "buffer",
        "conv": "4-D (a convolution kernel or the like), no matrix",
        "logit_scale": "scalar",
        "empty": "empty, shape (0, 4)",
        "counts": "1-D I64",
        "mlp.experts.down_proj_bias": "2-D bias",
    }


def test_include_norms_scores_vectors_as_one_row(tmp_path: Path) -> None:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    path = write(tmp_path, layers(1) | {"model.layers.0.norm.weight": vector, "model.layers.0.norm.bias": vector + 1})
    scan = sf.scan(path, include_norms=True)
    norm = scan.module("model.layers.0.norm")
    # One singular value, quartiles all equal, threshold 0: no noise at all, which the reference scores as infinity.
    assert (norm.noise_free, norm.snr, norm.shape, norm.threshold) == (True, None, (16,), 0.0)
    assert norm.s_max == pytest.approx(float(vector.norm()), rel=1e-6)
    assert reasons(scan) == {"model.layers.0.norm.bias": "1-D (norm or bias)"}


def test_patterns_choose_what_is_read(llama: Path) -> None:
    steps: list[ScanProgress] = []
    scan = sf.scan(llama, include=["*.self_attn.*"], exclude=["re:[qk]_proj$"], progress=steps.append)
    assert {module.type for module in scan.modules} == {"self_attn.v_proj", "self_attn.o_proj"}
    assert {entry.reason for entry in scan.skipped} == {"left out by the include/exclude patterns"}
    assert steps[-1].total_bytes == 2 * (64 + 256) * 256 * 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"include": ["*.mlp.upproj"]},
            SelectionError,
            r"include: pattern '\*\.mlp\.upproj' matches no module; nearest",
        ),
        ({"exclude": ["nothing*"]}, SelectionError, r"exclude: pattern 'nothing\*' matches no module"),
        ({"include": ["re:("]}, UsageError, "regular expression"),
        ({"include": ["*layernorm"]}, UsageError, "expected a weight matrix to score, found none among 21 tensors"),
        ({"include": "lm_head"}, UsageError, "expected a list of patterns"),
        ({"method": "magic"}, UsageError, "unknown method 'magic': expected one of auto, band, svd"),
        ({"precision": "int4"}, UsageError, "unknown precision 'int4'"),
        ({"criterion": "aic"}, UsageError, "unknown criterion 'aic'"),
        ({"tolerance": 0.0}, UsageError, r"tolerance: expected a number in \(0, 1\), found 0.0"),
        ({"tolerance": float("nan")}, UsageError, "tolerance"),
        ({"threads": 0}, UsageError, "threads: expected at least 1, found 0"),
        ({"device": "tpu"}, UsageError, "unknown device 'tpu'"),
        ({"device": "cuda"}, BackendUnavailableError, "device 'cuda': .*usable CUDA devices; use --device cpu"),
    ],
)
def test_bad_options_fail_before_anything_is_read(
    llama: Path, options: dict[str, object], error: type[SpectrumFastError], message: str
) -> None:
    steps: list[ScanProgress] = []
    with pytest.raises(error, match=message):
        sf.scan(llama, progress=steps.append, **options)  # type: ignore[arg-type]
    assert not steps


# --- repeatability, progress, files ------------------------------------------------------------------------------


def test_repeated_scans_are_equal_to_the_last_byte_of_their_files(llama: Path) -> None:
    first, second = sf.scan(llama), sf.scan(llama)
    assert first == second
    assert format_scan(first) == format_scan(second)
    assert first.run["created"].startswith("20")
    assert 0 < first.run["compute_seconds"] <= first.run["elapsed_seconds"] * first.provenance["threads"]
    assert (first.run["modules"], first.run["resumed_modules"]) == (len(first.modules), 0)


def test_threads_change_scores_only_within_the_bounds(llama: Path) -> None:
    before = torch.get_num_threads()
    one, two = (sf.scan(llama, method="band", include=["*.0.*"], threads=threads) for threads in (1, 2))
    assert torch.get_num_threads() == before
    assert (one.provenance["threads"], two.provenance["threads"]) == (1, 2)
    for a, b in zip(one.modules, two.modules, strict=True):
        assert (a.name, a.noise_free, a.n_noise) == (b.name, b.noise_free, b.n_noise)
        if a.snr is None or b.snr is None:
            continue
        assert a.error_bound is not None
        assert b.error_bound is not None
        assert abs(a.snr - b.snr) <= a.snr * a.error_bound + b.snr * b.error_bound


def test_progress_is_monotone_and_ends_at_the_total(llama: Path) -> None:
    steps: list[ScanProgress] = []
    scan = sf.scan(llama, progress=steps.append)
    assert (steps[0].name, steps[0].done, steps[0].done_bytes) == ("", 0, 0)
    assert [step.done for step in steps] == list(range(len(scan.modules) + 1))
    for before, after in itertools.pairwise(steps):
        assert after.done_bytes > before.done_bytes
        assert after.elapsed_seconds >= before.elapsed_seconds
    assert steps[-1].done == steps[-1].total == len(scan.modules)
    assert steps[-1].done_bytes == steps[-1].total_bytes == scan.provenance["bytes_read"]
    assert {step.name for step in steps[1:]} == {module.name for module in scan.modules}


def test_a_scan_survives_its_file(llama: Path, tmp_path: Path) -> None:
    scan = sf.scan(llama)
    scan.save(tmp_path / "scan.json")
    assert load_scan(tmp_path / "scan.json") == scan


def test_a_folder_called_published_is_no_published_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "published", layers(1))
    monkeypatch.chdir(tmp_path)
    assert not sf.scan("published").published


def test_a_file_replaced_during_a_scan_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrum_fast.read.stream.weights.STRETCH_BYTES", 1)  # or all of it were read at once
    monkeypatch.setattr("spectrum_fast.read.stream.options.AUTO_WINDOW_BYTES", 1)
    path = write(tmp_path / "model", layers(8))
    other = write(tmp_path / "other", layers(8, start=20)) / "model.safetensors"

    def replace_file(step: ScanProgress) -> None:
        if step.done == 2:
            os.replace(other, path / "model.safetensors")

    with pytest.raises(CheckpointError, match="replaced while being read; scan again"):
        sf.scan(path, method="svd", progress=replace_file)  # one by one: what goes together is read before


def test_the_reading_thread_ends_with_an_interrupted_scan(tmp_path: Path) -> None:
    def interrupt(step: ScanProgress) -> None:
        if step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.scan(write(tmp_path, layers(4)), progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spectrum-fast-read")]
