"""Cuts that the scores do not decide at their accuracy are decided at a higher one.

A selection takes the best share of each group. Where the last module taken and the first one left out are nearer than
their error bounds, chance in the rounding would choose. Then every module whose interval of doubt reaches across the
cut is read again and scored in float64. What is still a tie after that is one, and the selection says so.
"""

from __future__ import annotations

from dataclasses import replace

from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.choose.selection.ranking import group_modules, towers_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import ModuleResult, copied
from spectrum_fast.scanning.scoring import make_scorer, score_weights

REFINED_TOLERANCE = 1e-7
"""Accuracy of a refined score: a thousandth of the default one, and well above what float64 rounding allows."""


def refine_cuts(scan: Scan, plan: ScanPlan, options: ScanOptions) -> Scan:
    """Score again what stands at a cut that is not decided, where neither method nor precision were asked for by name.

    Args:
        scan: complete; its groups are those of the default grouping.
        plan: what was read for it.
        options: under which it was made; ``top_percent`` says where the cuts are.

    Returns:
        The same scan where all is decided; else one in which the modules in doubt have scores from float64, with a note
        each, and ``provenance["refined"]`` names them.

    Raises:
        CheckpointError: the checkpoint changed since it was scanned.
    """
    top_percent = options.top_percent
    if top_percent is None or (options.method, options.precision) != ("auto", "auto") or not scan.modules:
        return scan
    plans = {weight.name: weight for weight in plan.weights}
    originals = {copy.name: found for copy, found in plan.copies}
    doubtful = dict.fromkeys(originals.get(name, name) for name in doubtful_modules(scan, top_percent))
    doubtful = [name for name in doubtful if name in plans]
    if not doubtful:
        return scan
    again, results = [plans[name] for name in doubtful], list[ModuleResult]()
    scorer = make_scorer(replace(options, precision="float64", tolerance=REFINED_TOLERANCE), again)
    score_weights(again, scorer, options.stream, results.append)
    refined: dict[str, ModuleScore] = {}
    for record in (result.record for result in results):
        if isinstance(record, ModuleScore):
            note = f"refined: the cut at {top_percent:g} % was undecided"
            refined[record.name] = replace(record, note=f"{record.note}; {note}" if record.note else note)
    refined |= {copy.name: copied(refined[found], copy) for copy, found in plan.copies if found in refined}
    return replace(
        scan,
        modules=tuple(refined.get(module.name, module) for module in scan.modules),
        provenance={**scan.provenance, "refined": sorted(refined)},
    )


def doubtful_modules(scan: Scan, top_percent: float) -> list[str]:
    """Modules that may stand on either side of an undecided cut, in scan order; of a fused parameter, all its parts.

    Noise-free modules are certain, and so are scores with bounds of zero.
    """
    selection = scan.select(top_percent, allow_incomplete=True)
    taken = {module.name for module in selection.modules}
    undecided = {group.name for group in selection.groups if group.undecided}
    rivals = [one for one in competing_modules(scan) if one.snr is not None and one.name not in selection.always]
    doubtful: set[str | None] = set()
    for group, members in group_modules(rivals, "type", towers_of(scan)).items():
        above = [module for module in members if module.name in taken]
        below = [module for module in members if module.name not in taken]
        if group not in undecided or not above or not below:
            continue
        lowest_above = min(module.score_range[0] for module in above)
        highest_below = max(module.score_range[1] for module in below)
        unsure = [module for module in above if module.score_range[0] <= highest_below]
        unsure += [module for module in below if module.score_range[1] >= lowest_above]
        doubtful.update(module.parameter or module.name for module in unsure if module.error_bound)
    return [module.name for module in scan.modules if (module.parameter or module.name) in doubtful]
