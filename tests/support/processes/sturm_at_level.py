"""Counts and logarithms of stored cases, by the compiled kernel of this process."""

import json
import sys

import torch

from spectrum_fast import _native
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.ops.sturm import count_below, log_abs_det

case = torch.load(sys.argv[1])
result = {"kernel": _native.sturm_kernel(), "counts": [], "logs": []}
for band, shifts, z in case:
    with use_backend("native"):
        result["counts"].append(count_below(band[None], shifts[None])[0].tolist())
        result["logs"].append(log_abs_det(band[None], z[None])[0].tolist())
print(json.dumps(result))
