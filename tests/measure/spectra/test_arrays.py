"""What NumPy and torch name differently: the same numbers of both, and a row's the same bits beside others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from spectrum_fast.measure.spectra import arrays

FORMS = pytest.mark.parametrize("form", [np.array, torch.tensor], ids=["numpy", "torch"])
rng = np.random.default_rng(3)
ROWS = np.sort(rng.integers(0, 9, (4, 11)).astype(float))


@FORMS
def test_helpers_do_what_they_say(form: Callable[[Any], Any]) -> None:
    rows, wanted = form(ROWS), form(ROWS[:, [3, 7, 7]] + [0.0, 0.5, -0.5])
    for right in (False, True):
        side = "right" if right else "left"
        expected = [row.searchsorted(one, side) for row, one in zip(ROWS, np.asarray(wanted), strict=True)]
        found = arrays.places_in(rows, wanted, right=right)
        assert np.array_equal(np.asarray(found), expected)
        assert np.array_equal(
            np.asarray(arrays.pick(rows, found.clip(None, 10))),
            np.take_along_axis(ROWS, np.clip(expected, None, 10), 1),
        )
    cube = rng.random((2, 3, 5))
    places = rng.integers(0, 5, (2, 3, 4))
    assert np.array_equal(np.asarray(arrays.pick(form(cube), form(places))), np.take_along_axis(cube, places, 2))
    assert np.array_equal(np.asarray(arrays.ascending(form(cube))), np.sort(cube))
    assert np.array_equal(np.asarray(arrays.columns(form(cube), form(-cube))), np.stack([cube, -cube], -1))
    assert np.array_equal(np.asarray(arrays.complex_of(form(cube), form(-cube))), cube - 1j * cube)
    assert np.array_equal(np.asarray(arrays.steps(5, rows)), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert np.array_equal(np.asarray(arrays.constants((0.5, -1.0), rows)), [0.5, -1.0])
    for made in (arrays.steps(5, rows), arrays.constants((0.5, -1.0), rows), arrays.in_form_of(rows, torch.zeros(2))):
        assert type(made) is type(rows)
    assert arrays.tensor_of(rows).tolist() == ROWS.tolist()


@pytest.mark.parametrize("name", ["exp", "log", "arctan2", "power", "sqrt"])
def test_what_numpy_computes_of_a_number_does_not_depend_on_its_place(name: str) -> None:
    """Nor on how many there are: a vector loop may not round what it is left with otherwise."""
    numbers, others = rng.random(203) * 10.0 ** rng.integers(-8, 3, 203), rng.random(203) - 0.5
    function = getattr(np, name)
    operands = (numbers, others) if name in ("arctan2", "power") else (numbers,)
    together = function(*operands)
    for begin, end in [(index, index + 1) for index in range(203)] + [(3, 20), (100, 203), (7, 15), (1, 66)]:
        assert np.array_equal(function(*(one[begin:end].copy() for one in operands)), together[begin:end])
