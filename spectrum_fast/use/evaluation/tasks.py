"""Tasks by name, or by the file that describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectrum_fast.errors import UsageError
from spectrum_fast.files import read_text


def resolve_tasks(tasks: Sequence[str]) -> tuple[list[str], list[str | Path]]:
    """Turn what a person names into task names and folders that describe them.

    Args:
        tasks: names that lm-evaluation-harness knows, or paths of its YAML task files.

    Returns:
        names, and folders of task files.

    Raises:
        UsageError: a file is missing, is not YAML, or names no task.
    """
    names: list[str] = []
    folders: set[str] = set()
    for task in tasks:
        if not task.endswith((".yaml", ".yml")):
            names.append(task)
            continue
        names.append(_name_in(Path(task)))
        folders.add(str(Path(task).resolve().parent))
    if len(set(names)) != len(names):
        raise UsageError(f"each task once: found {', '.join(names)}")
    return names, sorted(folders)


def _name_in(path: Path) -> str:
    """The value of ``task:`` of a task file; tags such as ``!function`` are looked over, not followed."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads unknown tags as plain text."""

    Loader.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))
    try:
        document = yaml.load(read_text(path, error=UsageError), Loader=Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: expected a task file in YAML: {error}") from error
    name = document.get("task") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: expected a task file with its name under `task`, found {name!r}")
    return name
