"""What a packed layout is to this program: one record that says how it is recognised, planned, decoded and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.config import QuantisationConfig
from spectrum_fast.read.formats.weight_plan import WeightPlan

FLOATS = ("F32", "F16", "BF16")
"""Types that scales are stored in."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One packed layout.

    Attributes:
        title: its name for people.
        codes: how the names of its codes end; with a dot before it, a whole component.
        companions: how the name of a companion ends in place of that -> its role, the name of its argument in decoding.
        marks: roles of which one has to be there.
        alone: whether a tensor is such codes although no mark is there.
        accepts: what else has to hold for the codes.
        telling: endings that nothing but a companion carries -> how the name of its codes ends: where these are lost,
            the companion is reported.
        telling_types: storage types of such companions; empty for any.
        types: role -> storage types; ``codes`` for the codes.
        required: roles without which the codes mean nothing.
        methods: ``quant_method`` that ``config.json`` has to name; empty for any.
        plan: from what was found, once all of the above holds, to a plan; None where the layout is refused.
        row: of docs/formats.md: format, recognised by, example, decoded, tested against; empty where another format's
            row speaks for it.
    """

    title: str
    codes: str
    companions: Mapping[str, str]
    marks: tuple[str, ...] = ()
    alone: Callable[[TensorRef], bool] = lambda _: False
    accepts: Callable[[TensorRef], bool] = lambda _: True
    telling: Mapping[str, str] = field(default_factory=dict)
    telling_types: tuple[str, ...] = ()
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    plan: Callable[[PackedWeight], WeightPlan] | None = None
    row: str = ""


@dataclass(frozen=True)
class PackedWeight:
    """Codes, and the tensors that are needed to read them.

    Attributes:
        codes: the packed tensor.
        formats: those that the names allow, the likeliest first; none where ``codes`` is a companion whose codes no
            file holds.
        companions: role -> tensor.
        owner: name of those lost codes.
        config: what the checkpoint's configuration says, once a plan is made.
    """

    codes: TensorRef
    formats: tuple[Format, ...]
    companions: Mapping[str, TensorRef]
    owner: str = ""
    config: QuantisationConfig = field(default_factory=QuantisationConfig)

    @property
    def layout(self) -> str:
        """Name of the format for people."""
        return " or ".join(form.title for form in self.formats) or "companion of quantised codes"


def name_of(codes: str, form: Format, role: str) -> str:
    """The name that a companion of these codes would have."""
    ending = next(ending for ending, known in form.companions.items() if known == role)
    return (f".{codes}".removesuffix(form.codes) + ending).removeprefix(".")


def missing(packed: PackedWeight, names: str) -> UnsupportedDtypeError:
    """The refusal of codes (or of a companion) that need tensors which no file holds."""
    codes = packed.codes
    return UnsupportedDtypeError(
        f"{codes}: {packed.layout}: expected {names} beside it, found in no file of the checkpoint; download or "
        "save it again"
    )


def refuse(packed: PackedWeight, reason: str = "") -> UnsupportedDtypeError:
    """The refusal of a packed weight: its tensor, file, layout and what to do."""
    codes = packed.codes
    return UnsupportedDtypeError(
        f"{codes}: stored as {packed.layout} ({codes.dtype} codes of shape {codes.shape}), which this version does not "
        f"decode{': ' + reason if reason else ''}; expected a plain weight or a layout listed in docs/formats.md: scan "
        "the unquantised checkpoint"
    )
