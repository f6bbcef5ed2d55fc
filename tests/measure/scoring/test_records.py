"""The records of a scan refuse what must never reach a sort or a file."""

from __future__ import annotations

import math
from typing import get_type_hints

import numpy as np
import pytest
import torch

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError, TensorError
from spectrum_fast.measure.scoring.json_fields import type_of
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure

REAL_FIELDS = [key for key, hint in get_type_hints(ModuleScore).items() if type_of(hint)[0] is float and key != "snr"]
COUNT_FIELDS = [key for key, hint in get_type_hints(ModuleScore).items() if type_of(hint)[0] is int]


def score(name: str = "model.layers.0.mlp.up_proj", **values) -> ModuleScore:
    return ModuleScore(**{"name": name, "type": "mlp.up_proj", "snr": 1.5, **values})


@pytest.mark.parametrize("field", ["snr", *REAL_FIELDS])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, "1.0", True, [1.0], 10**400])
def test_no_real_field_takes_what_is_no_finite_number(field, value):
    with pytest.raises(TensorError, match=rf"up_proj: {field} must be"):
        score(**{field: value})


@pytest.mark.parametrize("field", COUNT_FIELDS)
@pytest.mark.parametrize("value", [-1, 1.5, True, "3", math.nan])
def test_no_count_takes_what_is_no_whole_number(field, value):
    with pytest.raises(TensorError, match=rf"up_proj: {field} must be"):
        score(**{field: value})


def test_scalars_of_other_libraries_become_plain_numbers():
    made = score(snr=np.float32(0.1), s_max=torch.tensor(2.5), n_signal=np.int64(3), shape=torch.Size([4, 5]))
    assert type(made.snr) is float
    assert made.snr == float(np.float32(0.1))
    assert (type(made.s_max), made.s_max) == (float, 2.5)
    assert (type(made.n_signal), made.n_signal) == (int, 3)
    assert (type(made.shape), made.shape) == (tuple, (4, 5))


def test_snr_is_missing_exactly_where_there_is_no_noise():
    assert score(snr=None, noise_free=True).rank_value == math.inf
    with pytest.raises(TensorError, match="not noise-free"):
        score(snr=None)
    with pytest.raises(TensorError, match="no finite snr"):
        score(noise_free=True)
    with pytest.raises(TensorError, match="needs a name"):
        score(name="")


@pytest.mark.parametrize(
    ("snr", "bound", "expected"),
    [(3.0, 0.5, (2.0, 6.0)), (3.0, None, (3.0, 3.0)), (3.0, 1.0, (1.5, math.inf)), (0.0, 0.5, (0.0, 0.0))],
)
def test_the_range_of_a_score_follows_from_its_bound(snr, bound, expected):
    assert score(snr=snr, error_bound=bound).score_range == expected


def test_names_are_unique_over_scores_and_failures():
    with pytest.raises(ScanFileError, match="'a' twice"):
        Scan("m", "spectrum", (score("a"), score("a")))
    with pytest.raises(ScanFileError, match="'a' twice"):
        Scan("m", "spectrum", (score("a"),), (ScanFailure(name="a", kind="nan", message="x"),))


def test_lists_and_pairs_become_records():
    scan = Scan("m", "spectrum", [score("a")], [ScanFailure(name="b", kind="nan", message="x")], {}, [("c", "bias")])
    assert (scan.modules, scan.skipped[0].name, scan.skipped[0].reason) == ((score("a"),), "c", "bias")
    assert type(scan.failures) is type(scan.skipped) is tuple
    assert not scan.complete


def test_groups_keep_scan_order():
    scan = Scan("m", "spectrum", (score("b", type="y"), score("a", type="x"), score("c", type="y")))
    assert {key: [module.name for module in group] for key, group in scan.by_type().items()} == {
        "y": ["b", "c"],
        "x": ["a"],
    }
    assert list(scan.by_type()) == ["y", "x"]
    assert scan.module("a").type == "x"
    with pytest.raises(KeyError, match="'z'"):
        scan.module("z")
    assert scan.complete
    assert not scan.published
