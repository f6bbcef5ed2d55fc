"""Scans made up for reports: their spectra are drawn from known laws, their names from real models."""

from __future__ import annotations

import numpy as np

from spectrum_fast import Scan
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.read.checkpoint.naming import module_type

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=2">',
    "\"'`onmouseover=window.pwned=3 x=",
    '<a href="javascript:window.pwned=4">layers.0.click</a>',
    "a&lt;b&amp;<b>bold</b>%{customdata}<br>$x^2$",
    "__proto__",
    "constructor",
    "אבג.layers.1.דהו",
    "evil\u202egnp.txt",
    "esc\x1b[31mred\x07",
    '=HYPERLINK("http://x")',
    "n" * 10_000,
)
"""Names that try to be markup, code, a terminal's commands, a spreadsheet's formula, or too long."""


def scored(name: str, snr: float | None, **fields: object) -> ModuleScore:
    """A module as a published file tells it, and whatever else is given."""
    return ModuleScore(name=name, type=module_type(name), snr=snr, noise_free=snr is None, **fields)  # type: ignore[arg-type]


def measured(name: str, snr: float | None, rng: np.random.Generator, shape: tuple[int, int] = (96, 64)) -> ModuleScore:
    """A module as a scan of our own tells it: quantiles, sums and a histogram of random values."""
    values = np.sort(rng.gamma(4.0, 0.25, min(shape)))
    values[-1] *= 4
    q25, q50, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    knee = q75 + 3 * (q75 - q25)
    edges = np.append(np.linspace(0, knee, 13)[:-1], np.geomspace(knee, values[-1], 5))
    counts = np.histogram(values, np.append(edges[:-1], np.inf))[0]
    threshold = (q75 - q25) / 1.349 * (1 + (min(shape) / max(shape)) ** 0.5)
    return scored(
        name,
        snr,
        parameter=f"{name}.weight",
        shape=shape,
        dtype="BF16",
        s_min=values[0],
        q25=q25,
        q50=q50,
        q75=q75,
        s_max=values[-1],
        threshold=threshold,
        signal_sum=values[values > threshold].sum(),
        noise_sum=values[values <= threshold].sum(),
        n_signal=(values > threshold).sum(),
        n_noise=(values <= threshold).sum(),
        error_bound=2e-5,
        method="band-float32",
        note="spikiness 3 <= 30",
        histogram=Histogram(0.0, knee, values[-1], 12, tuple(counts.tolist())),
    )


def dense_model(layers: int = 12, seed: int = 0, spectra: bool = True) -> Scan:
    """A Llama: seven types a layer, tables, a tie at a cut, noise-free modules."""
    rng = np.random.default_rng(seed)
    make = measured if spectra else (lambda name, snr, _: scored(name, snr))
    modules = [make("model.embed_tokens", 2.0, rng)]
    for layer in range(layers):
        for kind in ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *(f"self_attn.{x}_proj" for x in "koqv")):
            score = float(np.exp(rng.normal()))
            if kind == "self_attn.o_proj" and layer in (2, 3, 4):
                score = 5.0  # equal scores: the cut is decided by name
            free = kind == "self_attn.v_proj" and rng.random() < 0.5
            modules.append(make(f"model.layers.{layer}.{kind}", None if free else score, rng))
    modules.append(make("lm_head", None, rng))
    provenance = {
        "tool": "spectrum_fast",
        "version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "bytes_read": 16_060_522_496,
        "elapsed_seconds": 81.5,
        "read_seconds": 12.25,
        "compute_seconds": 78.0,
    }
    return Scan("org/dense", "spectrum", tuple(modules), provenance=provenance)


def experts_model(layers: int = 6, experts: int = 16, seed: int = 0, spectra: bool = False) -> Scan:
    """A mixture of experts with dense first layers, a router, shared experts and routed ones."""
    rng = np.random.default_rng(seed)
    make = measured if spectra else (lambda name, snr, _: scored(name, snr))
    modules = [make("model.embed_tokens", 2.0, rng)]
    for layer in range(layers):
        start = f"model.layers.{layer}."
        names = [start + f"self_attn.{kind}_proj" for kind in ("q_a", "q_b", "kv_b", "o")]
        if layer == 0:
            names += [start + f"mlp.{kind}_proj" for kind in ("gate", "up", "down")]
        else:
            names.append(start + "mlp.gate")
            owners = ["shared_experts", *(f"experts.{expert}" for expert in range(experts))]
            names += [f"{start}mlp.{owner}.{kind}_proj" for owner in owners for kind in ("gate", "up", "down")]
        modules += [make(name, None if rng.random() < 0.03 else float(np.exp(rng.normal())), rng) for name in names]
    modules.append(make("lm_head", 3.0, rng))
    return Scan("org/experts", "spectrum", tuple(modules))


def towers_model(seed: int = 0) -> Scan:
    """A LLaVA: a language model of 8 layers and a vision tower of 4, whose types are partly the same."""
    rng = np.random.default_rng(seed)
    kinds = ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1")
    names = ["language_model.model.embed_tokens"]
    names += [f"language_model.model.layers.{layer}.{kind}" for layer in range(8) for kind in kinds]
    names += ["vision_tower.embeddings.position_embedding"]
    names += [f"vision_tower.encoder.layers.{layer}.{kind}" for layer in range(4) for kind in kinds]
    modules = tuple(scored(name, float(np.exp(rng.normal()))) for name in [*names, "lm_head"])
    config = {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}, "text_config": {}}
    return Scan("org/towers", "spectrum", modules, provenance={"config": config})


def named_model(*names: str, noise_free: bool = False) -> Scan:
    """Modules of these names with scores 0, 1, 2, ..."""
    return Scan("named", "spectrum", tuple(scored(n, None if noise_free else float(i)) for i, n in enumerate(names)))


def failed_model() -> Scan:
    """One tensor failed, one is tied to another, one was left out."""
    return Scan(
        "org/failed",
        "mp",
        tuple(module for module in dense_model(layers=4).modules if module.name != "model.layers.1.mlp.up_proj")[:-1],
        failures=(ScanFailure(name="model.layers.1.mlp.up_proj", kind="values", message="holds NaN in 3 entries"),),
        ties={"lm_head": "model.embed_tokens"},
        skipped=(SkippedTensor("model.norm", "1-D (norm or bias)"),),
    )


def fused_model(layers: int = 8, experts: int = 4, seed: int = 0) -> Scan:
    """Experts fused in one parameter, scored part by part."""
    rng = np.random.default_rng(seed)
    modules = []
    for layer in range(layers):
        modules.append(measured(f"model.layers.{layer}.self_attn.q_proj", float(np.exp(rng.normal())), rng))
        for expert in range(experts):
            part = measured(f"model.layers.{layer}.mlp.experts.{expert}.down_proj", float(np.exp(rng.normal())), rng)
            object.__setattr__(part, "parameter", f"model.layers.{layer}.mlp.experts.down_proj")
            object.__setattr__(part, "parts", experts)
            object.__setattr__(part, "parameter_shape", (experts, 96, 64))
            modules.append(part)
    return Scan("org/fused", "spectrum", tuple(modules))
