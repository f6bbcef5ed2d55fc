"""What a selection is made of: modules to train, and the groups that they were chosen from."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum_fast.measure.scoring.json_fields import Name
from spectrum_fast.read.checkpoint.naming import module_name


@dataclass(frozen=True, kw_only=True)
class SelectedModule:
    """One module to train.

    Attributes:
        name: module name, without ``.weight``.
        type: what follows the first numeric path component.
        group: the group it competed in: ``type``, or ``tower:type`` in another tower than the language model.
        parameter: full parameter name in the checkpoint; None where only names are known.
        shape: of the stored tensor; None where not known.
        snr: its score; None if ``noise_free``, or where only names are known.
        noise_free: it has no noise at all and ranks above every finite score.
        rank: place in its group, 1 is best; None where only names are known.
        group_size: modules that competed in its group; None where only names are known.
        parameter_shape: shape of the whole parameter, if this is a part of it (an expert, a fused projection).
    """

    name: Name
    type: Name
    group: Name
    parameter: Name | None = None
    shape: tuple[int, ...] | None = None
    snr: float | None = None
    noise_free: bool = False
    rank: int | None = None
    group_size: int | None = None
    parameter_shape: tuple[int, ...] | None = None

    @property
    def home(self) -> str:
        """Name of the module that a trainer frees for it: of the whole parameter where it is a part of one."""
        return self.name if self.parameter is None else module_name(self.parameter)


@dataclass(frozen=True, kw_only=True)
class SelectionGroup:
    """One group and its cut.

    Attributes:
        name: group name.
        taken: how many modules were taken.
        size: how many competed; None where only names are known. Modules trained always do not compete.
        always: modules of this group that are trained whatever their score.
        last_taken: the module just above the cut, None if none was taken.
        first_left_out: the module just below, None if all were taken.
        gap: ``(snr above - snr below) / snr above`` at the cut, in [0, 1]; None without a cut, or where the module
            above is noise-free and the one below is not.
        undecided: by their error bounds, a module left out may score as high as one that is taken (or equal scores, or
            noise-free modules, lie on both sides), so that which of them is taken is not decided by signal.
    """

    name: Name
    taken: int
    size: int | None = None
    always: tuple[str, ...] = ()
    last_taken: Name | None = None
    first_left_out: Name | None = None
    gap: float | None = None
    undecided: bool = False


@dataclass(frozen=True, kw_only=True)
class SelectionHead:
    """How the modules of a selection were chosen, and what is trained whatever its score; in the order of the file.

    Attributes:
        model: what was scanned; None where only names are known.
        criterion: the rule behind the scores; None where not known.
        top_percent: share of each group, in (0, 100]; None where not known.
        grouping: one of :data:`spectrum_fast.choose.selection.ranking.GROUPINGS`; None where not known.
        rounding: one of :data:`spectrum_fast.choose.selection.ranking.Rounding`; None where not known.
        fused: how fused parameters competed, one of :data:`spectrum_fast.choose.selection.fused.FUSED`; None where not
            known.
        order: ``top``, or ``bottom`` or ``random`` for a control of the same size.
        seed: of a ``random`` order; None otherwise.
        always_rule: ``default`` (embeddings and lm_head), ``none`` or ``custom``.
        always: modules trained whatever their score; they do not compete.
        failed: tensors without a score that the selection leaves out (``allow_incomplete``).
    """

    model: str | None = None
    criterion: str | None = None
    top_percent: float | None = None
    grouping: str | None = None
    rounding: str | None = None
    fused: str | None = None
    order: str = "top"
    seed: int | None = None
    always_rule: str = "default"
    always: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
