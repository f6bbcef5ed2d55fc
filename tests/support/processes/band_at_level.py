"""Errors of band reductions by the compiled kernel of this process."""

import json

import torch

from spectrum_fast import _native
from spectrum_fast.measure.ops.band import reduce_to_band

result = {"name": _native.band_kernel(), "errors": {}}
for dtype in (torch.float32, torch.float64):
    for n, b in ((2, 1), (33, 8), (100, 5), (130, 32), (200, 64)):
        weight = torch.randn(n, n + 9, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        for name, matrix in (("gram", weight @ weight.T), ("rank one", weight[:, :1] @ weight[:, :1].T)):
            matrix = matrix.to(dtype)
            band = reduce_to_band(matrix.clone()[None], b)[0].double()
            dense = torch.zeros(n, n, dtype=torch.float64)
            for d in range(min(b, n - 1) + 1):
                dense.diagonal(-d).copy_(band[: n - d, d])
                dense.diagonal(d).copy_(band[: n - d, d])
            error = torch.linalg.eigvalsh(dense) - torch.linalg.eigvalsh(matrix.double())
            size = float(matrix.double().norm()) * torch.finfo(dtype).eps
            result["errors"][f"{name} {n} {b} {dtype}"] = float(error.abs().max()) / size
print(json.dumps(result))
