"""Errors of Gram matrices by the compiled kernels of this process."""

import json

import torch

from spectrum_fast import _native
from spectrum_fast.measure.ops.gram import add_gram, gram

result = {"names": {n: _native.gram_kernel(n) for n in ("float64", "float32", "float16", "bfloat16")}, "errors": {}}
for name in ("float64", "float32", "float16", "bfloat16"):
    for rows, columns in ((1, 1), (5, 3), (33, 70), (130, 129), (70, 1100)):
        for order in ("rows", "columns"):
            generator = torch.Generator().manual_seed(rows)
            weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(getattr(torch, name))
            if order == "columns":
                weight = weight.T.contiguous().T
            wide = weight.double() if rows <= columns else weight.double().T
            for out_dtype in (torch.float64,) if name == "float64" else (torch.float32, torch.float64):
                found = gram(weight[None], out_dtype=out_dtype)[0].double()
                error = ((found - wide @ wide.T).abs() / (wide.abs() @ wide.abs().T)).max()
                case = f"{name} {rows}x{columns} {order} {out_dtype}"
                result["errors"][case] = float(error) / torch.finfo(out_dtype).eps
                out, oriented = torch.zeros_like(found, dtype=out_dtype), weight if rows <= columns else weight.T
                for block in oriented.tensor_split(3, dim=1):
                    if block.shape[1]:
                        add_gram(block[None], out[None])
                error = ((out.double() - wide @ wide.T).abs() / (wide.abs() @ wide.abs().T)).max()
                result["errors"][case + " in blocks"] = float(error) / torch.finfo(out_dtype).eps
print(json.dumps(result))
