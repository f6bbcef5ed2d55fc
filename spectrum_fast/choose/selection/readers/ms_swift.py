"""ms-swift: everything frozen, then what begins with a given name freed (``activate_parameters``: ``startswith``)."""

from __future__ import annotations

from spectrum_fast.choose.selection.readers.name_index import NameIndex
from spectrum_fast.choose.selection.readers.reading import Reader, match_entries, shapes_of

READER = Reader(
    name="ms-swift",
    rule="`--trainable_parameters`: parameters whose name starts with an entry",
    write=lambda wanted: "".join(f"{name}\n" for name in wanted.parameters),
    read=lambda text, model: match_entries(text.split(), NameIndex(shapes_of(model)).starting_with),
    usage="swift sft --tuner_type full --freeze_parameters_ratio 1 --trainable_parameters $(cat {file})",
)
