"""Hooks of mkdocs: the order of the pages, the pages made from the code, and the roles in docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.docs.commands_page import commands_page  # noqa: E402
from tools.docs.history_page import history_page  # noqa: E402
from tools.docs.options_table import fill_in_options  # noqa: E402
from tools.docs.performance_page import calibration_table, performance_page  # noqa: E402
from tools.docs.platform_tables import fill_in_platforms  # noqa: E402
from tools.docs.recipes_page import recipes_page  # noqa: E402

SECTIONS: dict[str, tuple[str, ...]] = {
    "Start": ("index.md",),
    "Use": ("commands.md", "report.md", "readers.md", "library.md"),
    "Train": ("training.md", "trainers.md", "recipes.md", "planner.md", "rescan.md", "evaluation.md", "laser.md"),
    "Checkpoints": ("formats.md", "sources.md", "streaming.md", "long-scans.md", "live.md", "trust.md"),
    "How it works": ("method.md", "criteria.md", "differences.md", "engine.md"),
    "Measured": ("performance.md", "quality-study.md", "training-results.md", "mutation.md", "history.md"),
    "Reference": ("api.md", "platforms.md", "stability.md", "troubleshooting.md"),
}
"""Pages by section, in order. One that is not there is left out; one that is not named comes under *More*."""

CALIBRATION_MARK = "<!-- calibration table -->"
_ROLE = re.compile(r":(?:func|class|mod|meth|data|attr|exc):<code>([^<]*)</code>")
_OUTSIDE = re.compile(r"\]\((?:\.\./)+([\w./-]+)(#[\w-]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code and from the committed results."""
    from mkdocs.structure.files import File

    history, pictures = history_page()
    performance, charts = performance_page()
    made = {
        "commands.md": commands_page(),
        "performance.md": performance,
        "history.md": history,
        "recipes.md": recipes_page(),
        **pictures,
        **charts,
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_config(config: Any) -> Any:
    """Set the navigation from :data:`SECTIONS` and from what lies in ``docs/``."""
    there = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    there |= {"commands.md", "performance.md", "history.md", "recipes.md"}
    sections = [
        {title: [name for name in names if name in there]} for title, names in SECTIONS.items() if there & set(names)
    ]
    named = {name for names in SECTIONS.values() for name in names}
    if more := sorted(there - named):
        sections.append({"More": more})
    config.nav = sections
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Fill in tables that are made; a link to a file of the repository outside ``docs/`` becomes its name."""
    text = fill_in_options(fill_in_platforms(markdown.replace(CALIBRATION_MARK, calibration_table())))
    return _OUTSIDE.sub(lambda found: f"] (`{found[1]}` in the repository)", text)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """``:func:`name``` in a docstring becomes a link where the name has an entry, and code where not."""

    def link(found: re.Match[str]) -> str:
        target = found[1].removeprefix("~")
        title, _, inner = target.partition(" &lt;")
        name = inner.removesuffix("&gt;") or target
        shown = title if inner else (name.rpartition(".")[2] if found[1].startswith("~") else name)
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(link, html)
