"""Kernels: what each writes, computed on the host by other means. A launch of any other one fails for want of a driver.

The kernels themselves are proved in Triton's interpreter, which would take hours for the matrices here; the code that
launches them runs as it is.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import reference
from spectrum_fast.measure.ops.band.panels import STEPS, UPDATE
from spectrum_fast.measure.ops.sturm import native as sturm
from spectrum_fast.measure.ops.sturm.bands import Bands

from emulated_cuda import graphs, streams
from emulated_cuda.tensors import DeviceTensor, to_host


def _launch(run: Callable[..., object], args: tuple[Any, ...]) -> None:
    """One launch: everything that it points to lies on the device and has arrived."""
    graphs.COUNT.launches += 1
    for place, value in enumerate(args):
        if isinstance(value, Tensor) and not isinstance(value, DeviceTensor):
            raise ValueError(f"Pointer argument (at {place}) cannot be accessed from Triton (cpu tensor?)")
    streams.require_arrived([value for value in args if isinstance(value, DeviceTensor)])
    on_host = [to_host(value) for value in args]
    run(*on_host)
    operands = [value for value in on_host if isinstance(value, Tensor)]
    streams.wrote(operands)
    graphs.captured_launch(lambda: run(*on_host), operands)


class _Kernel:
    """In place of a compiled kernel: ``kernel[grid](...)``."""

    def __init__(self, run: Callable[..., object]) -> None:
        self._run = run

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Launch it; constants and options of the compiler change nothing that is computed, but for two."""
        assert all(0 < blocks < 2**31 for blocks in grid), grid
        assert all(blocks < 2**16 for blocks in grid[1:]), grid

        def launch(*args: Any, **options: Any) -> None:
            changing = {key: options[key] for key in ("ADD", "LOW_FIRST") if key in options}
            _launch(lambda *given: self._run(*given, **changing), args)

        return launch


def _gram(weight: Tensor, scales: Tensor, out: Tensor, *_: object, ADD: bool) -> None:
    wide = _decoded(weight, scales) if weight.dtype == torch.float8_e4m3fn else weight.to(torch.float32)
    product = wide @ wide.mT
    out.copy_(out + product if ADD else product)


def _decoded(codes: Tensor, scales: Tensor) -> Tensor:
    each = scales.repeat_interleave(128, 1).repeat_interleave(128, 2)[:, : codes.shape[1], : codes.shape[2]]
    return codes.contiguous().view(torch.float8_e4m3fn).to(torch.float32) * each


def _extent(weight: Tensor, tops: Tensor, sums: Tensor, size: int, programs: int, *strides: int) -> None:
    assert (*weight.shape, weight.stride()) == (len(tops), tops.shape[1] // programs, size, (*strides, 1))
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[weight.element_size()]
    bits = weight.view(integer).to(torch.int64) & ((1 << (8 * weight.element_size() - 1)) - 1)
    tops.zero_()
    sums.zero_()
    tops[:, 0], sums[:, 0] = bits.amax((1, 2)), weight.to(torch.float64).square().sum((1, 2))


def _extent_of_codes(codes: Tensor, tops: Tensor, sums: Tensor, rows: int, columns: int) -> None:
    for i in range(tops.shape[1]):
        for j in range(tops.shape[2]):
            block = codes[:, 128 * i : min(128 * i + 128, rows), 128 * j : min(128 * j + 128, columns)].contiguous()
            tops[:, i, j] = (block & 0x7F).amax((1, 2))
            sums[:, i, j] = block.view(torch.float8_e4m3fn).to(torch.float64).square().sum((1, 2))


def _product(weight: Tensor, x: Tensor, parts: Tensor, scales: Tensor, *_: object) -> None:
    wide = _decoded(weight, scales) if weight.dtype == torch.float8_e4m3fn else weight
    parts.zero_()
    parts[0] = x @ wide.to(torch.float64).mT


def _count(rows: Tensor, x: Tensor, counts: Tensor, order: int, *_: object) -> None:
    counts.copy_(sturm.count_below(_bands(rows, order), x.to(torch.float64)))


def _log_abs_det(rows: Tensor, operands: Tensor, logs: Tensor, order: int, *_: object) -> None:
    """Of ``scale B - z``."""
    logs.fill_(torch.nan)
    for place, given in enumerate(operands.to(torch.float64)):
        wanted = ~given[:, 1].isnan()
        re, im, scale = given[wanted].unbind(-1)
        z = torch.complex(re, im)
        inside = scale > 0
        shifts = torch.where(inside, z / torch.where(inside, scale, 1.0), torch.complex(re * 0, re * 0 + 1))
        values = sturm.log_abs_det(_bands(rows[place, None], order), shifts[None])[0]
        logs[place, wanted] = torch.where(inside, values + order * torch.log(scale), order * torch.log(z.abs()))


def _bands(rows: Tensor, order: int) -> Bands:
    return Bands(rows[:, :order, :-1].to(torch.float64).contiguous())


def _nibbles(
    codes: Tensor, table: Tensor, scales: Tensor, out: Tensor, size: int, half_width: int, *, LOW_FIRST: bool
) -> None:
    byte = codes.reshape(-1).to(torch.int64)
    places = (byte & 15, byte >> 4) if LOW_FIRST else (byte >> 4, byte & 15)
    both = table[torch.stack(places, 1).reshape(-1)[:size]].to(torch.float32)
    out.view(-1).copy_(both * scales.reshape(-1).repeat_interleave(2 * half_width)[:size])


_KERNELS: dict[tuple[str, str], Callable[..., object]] = {
    ("gram.triton", "_gram_kernel"): _gram,
    ("extent.triton", "_extent_kernel"): _extent,
    ("extent.triton", "_code_kernel"): _extent_of_codes,
    ("product.triton", "_product_kernel"): _product,
    ("sturm.triton", "_count_kernel"): _count,
    ("sturm.triton", "_log_abs_det_kernel"): _log_abs_det,
    ("decode.triton", "_nibble_kernel"): _nibbles,
}


def _band_steps() -> Any:
    """The steps of a panel, each as the one launch (or few) that it is, done by their model in torch operations."""

    def step(run: Callable[..., object]) -> Callable[..., None]:
        def launch(workspace: Any, index: int) -> None:
            fields = {field.name: getattr(workspace, field.name) for field in dataclasses.fields(workspace)}

            def on_host(*tensors: Tensor) -> None:
                run(type(workspace)(**(fields | dict(zip(names, tensors, strict=True)))), index)

            names = [name for name, value in fields.items() if isinstance(value, Tensor)]
            _launch(on_host, tuple(fields[name] for name in names))

        return launch

    return SimpleNamespace(**{name: step(getattr(reference, name)) for name in (*STEPS, UPDATE)})


def install() -> None:
    """In place of the compiled ones."""
    for (module, name), run in _KERNELS.items():
        found: ModuleType = importlib.import_module(f"spectrum_fast.measure.ops.{module}")
        assert hasattr(found, name), (module, name)
        setattr(found, name, _Kernel(run))
    importlib.import_module("spectrum_fast.measure.ops.band.triton").device_kernels = _band_steps()
