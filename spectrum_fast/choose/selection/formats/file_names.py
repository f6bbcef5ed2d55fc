"""File names of the reference implementation, which other tools look for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReferenceFileNames:
    """Names, without folder, of the three files of one model."""

    scores: str
    sorted_scores: str
    selection: str


def slug(model: str) -> str:
    """The model's name in file names: ``/`` and ``_`` become ``-``; dots and case stay.

    >>> slug("meta-llama/Meta-Llama-3.1-8B")
    'meta-llama-Meta-Llama-3.1-8B'
    """
    return model.replace("/", "-").replace("_", "-")


def reference_file_names(model: str, top_percent: float) -> ReferenceFileNames:
    """Names of the score file, its sorted twin and the YAML selection.

    >>> reference_file_names("a/b_c", 50).selection
    'snr_results_a-b-c_unfrozenparameters_50percent.yaml'
    """
    base = f"snr_results_{slug(model)}"
    whole = float(top_percent).is_integer()
    percent = str(int(top_percent)) if whole else repr(float(top_percent))
    return ReferenceFileNames(
        scores=f"{base}.json",
        sorted_scores=f"{base}_sorted.json",
        selection=f"{base}_unfrozenparameters_{percent}percent.yaml",
    )
