r"""The YAML of the reference implementation, byte for byte; axolotl and several scripts read it.

::

    unfrozen_parameters:
    - ^lm_head.weight$
    - ^model.embed_tokens.weight$
    # mlp.down_proj layers
    - model.layers.1.mlp.down_proj

Entries are unindented and, unless YAML itself would take one for something else (``1``, ``null``), unquoted, because
public scripts parse lines that start with ``"- "``. The two header lines
are always there, except with ``always="none"`` or a list of one's own, where they would train what the selection does
not: then the header names exactly the modules of ``always``. A default selection whose embeddings have another name
(``model.language_model.embed_tokens``, ``transformer.wte``) gets them as further header lines, so that the file means
what the selection says; for every model whose names the reference knows, the bytes are the reference's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.formats.name_lists import NAME
from spectrum_fast.choose.selection.ranking import count_taken
from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_type

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.selection import Selection

KEY = "unfrozen_parameters:"
REFERENCE_HEADER = ("lm_head", "model.embed_tokens")
"""Modules that the reference always trains, in the order of its header."""

_COMMENT = re.compile(r"#\s*(\S+) layers$")
_HEADER_ENTRY = re.compile(r"\^(.+?)(?:\.weight)?\$")


def header_modules(selection: Selection) -> tuple[str, ...]:
    """Modules named by the ``^...$`` lines at the top."""
    if selection.always_rule != "default":
        return selection.always
    return (*REFERENCE_HEADER, *(name for name in selection.always if name not in REFERENCE_HEADER))


def format_reference_yaml(selection: Selection) -> str:
    """The text of the YAML file; see the module's docstring."""
    by_group: dict[str, list[str]] = {group.name: _singletons(group, selection) for group in selection.groups}
    for module in selection.modules:
        by_group.setdefault(module.group, []).append(module.name)
    parts = [f"{KEY}\n", spell_entries([f"^{name}.weight$" for name in header_modules(selection)])]
    for group, names in by_group.items():
        parts += [f"# {group} layers\n", spell_entries(names)]
    return "".join(parts)


def spell_entries(texts: Sequence[str]) -> str:
    """One ``- text`` a line, as the YAML library spells it: a name can never become a key, or two lines."""
    return to_yaml(list(texts)) if texts else ""


def to_yaml(document: Any) -> str:
    """The document as the YAML library spells it, each of its texts on one line, keys in their order."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster, where it is built
    return yaml.dump(document, None, dumper, width=1 << 30, allow_unicode=True, sort_keys=False)


def parse_yaml(text: str, source: str) -> Any:
    """What the YAML library reads; ``source`` is what to call it in messages.

    Raises:
        SelectionError: it finds no YAML.
    """
    import yaml

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise SelectionError(f"{source}: expected YAML, found {str(error).splitlines()[0]}") from error


def _singletons(group: SelectionGroup, selection: Selection) -> list[str]:
    """Header modules that the reference names in their own group too, which takes them at 100 %."""
    if selection.always_rule != "default" or not selection.top_percent or group.size:
        return []
    return list(group.always)[: count_taken(len(group.always), selection.top_percent)]


def read_reference_yaml(text: str, source: str) -> dict[str, Any]:
    """The fields of the selection in a list: of our own files, the reference's, or a larger axolotl configuration.

    Indented and quoted entries, comments, blank lines and escaped dots are understood. Ranks, scores and percentages
    are not in the file and stay None.

    Raises:
        SelectionError: there is no ``unfrozen_parameters`` list, or an entry is a regular expression or a row range
            rather than a name; the message says which line.
    """
    always: list[str] = []
    groups: dict[str, list[str]] = {}
    inside = False
    group = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not inside:
            inside = raw.startswith(KEY)
            if inside and line.removeprefix(KEY).split("#")[0].strip():
                raise SelectionError(
                    f"{source}, line {number}: expected one entry a line after {KEY!r}, found {line!r}"
                )
            continue
        if comment := _COMMENT.match(line):
            group = comment.group(1)
            groups.setdefault(group, [])
        elif line.startswith("- "):
            name, is_header = _read_entry(line[2:], f"{source}, line {number}")
            home = always if is_header and not group else groups.setdefault(group or module_type(name), [])
            home.append(name)
        elif line and not line.startswith("#"):
            if raw[0].isspace() or line.startswith("-"):
                raise SelectionError(f"{source}, line {number}: expected an entry '- name', found {line!r}")
            break  # the next key of a larger file
    if not inside:
        raise SelectionError(f"{source}: expected a list {KEY!r}, found none")
    modules: dict[str, SelectedModule] = {}
    for group, names in groups.items():
        for name in names:
            if name not in always:
                modules.setdefault(name, SelectedModule(name=name, type=module_type(name), group=group))
    taken = [module.group for module in modules.values()]
    return {
        "modules": tuple(modules.values()),
        "always": tuple(dict.fromkeys(always)),
        "groups": tuple(SelectionGroup(name=group, taken=taken.count(group)) for group in groups),
        "always_rule": "custom" if always else "none",
    }


def _read_entry(entry: str, where: str) -> tuple[str, bool]:
    """The module that a line names, and whether it is spelt as one of the header."""
    text = entry.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        text = text[1:-1]  # of a lone quote nothing is left, which is no name either
    text = text.replace("\\.", ".")
    header = _HEADER_ENTRY.fullmatch(text)
    name = header.group(1) if header else text.removeprefix("^").removesuffix(".weight")
    if not NAME.fullmatch(name):
        raise SelectionError(
            f"{where}: expected a module name, found {entry.strip()!r}; regular expressions and row ranges cannot be "
            "read back as a selection"
        )
    return name, header is not None
