"""The rank that a low-rank update of each module needs, from its spectrum; and the file that tells PEFT."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spectrum_fast.choose.selection.fused import parts_by_parameter
from spectrum_fast.choose.selection.options import RankOptions
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import SelectionError
from spectrum_fast.files import read_text
from spectrum_fast.measure.scoring.quantities import SpectrumView
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint.naming import module_name


def module_rank(module: ModuleScore, options: RankOptions) -> int:
    """The rank of one module, at least 1.

    ``edge``: its singular values above the Marchenko-Pastur edge. A share: the least k of which
    ``s_1^2 + ... + s_k^2 >= share ||W||_F^2``.

    Raises:
        UsageError: the scan lacks the count, or all singular values; the message says what stores them.
    """
    view, share = SpectrumView(module), options.energy
    if share is None:
        rank = view.mp_rank
    else:
        energies = np.cumsum(view.values**2)
        rank = 1 + int(np.searchsorted(energies, share * energies[-1]))
    return max(1, min(rank, view.n_min, options.max_rank or view.n_min))


def module_ranks(record: Scan, options: RankOptions) -> dict[str, int]:
    """The rank of every module; of a fused parameter, under its own name too, the largest of its parts.

    Args:
        record: of a model, or of a difference: then the ranks are those of what training changed.
        options: which rule.

    Raises:
        UsageError: as :func:`module_rank`.
    """
    ranks = {module.name: module_rank(module, options) for module in record.modules}
    fused = parts_by_parameter(record.modules).items()
    return ranks | {module_name(name): max(ranks[part.name] for part in parts) for name, parts in fused}


def add_rank_pattern(text: str, ranks: Mapping[str, int]) -> str:
    """The JSON of PEFT's targets with their ranks: ``LoraConfig(**json)`` builds them.

    ``r`` is the commonest rank, ``rank_pattern`` has the others; ``lora_alpha`` and ``alpha_pattern`` are equal to
    them, so that the factor ``alpha / r`` is 1 in every module, as it is by PEFT's defaults.
    """
    common = Counter(ranks.values()).most_common(1)[0][0]
    pattern = {name: rank for name, rank in ranks.items() if rank != common}
    said = {"r": common, "lora_alpha": common, "rank_pattern": pattern, "alpha_pattern": pattern}
    return json.dumps(json.loads(text) | said, indent=1) + "\n"


def read_rank_pattern(path: str | Path) -> dict[str, int]:
    """Target -> rank of such a file.

    Raises:
        SelectionError: it is none.
    """
    try:
        said: dict[str, Any] = json.loads(read_text(path, error=SelectionError))
        names = [*(said["target_modules"] or ()), *(said.get("target_parameters") or ())]
        ranks = {str(name): said["rank_pattern"].get(name, said["r"]) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise SelectionError(f"{path}: expected targets of PEFT with r and rank_pattern, found {cause!r}") from cause
    for name, rank in ranks.items():
        if type(rank) is not int or rank < 1:
            raise SelectionError(f"{path}: {name}: expected a rank of 1 or more, found {rank!r}")
    return ranks
