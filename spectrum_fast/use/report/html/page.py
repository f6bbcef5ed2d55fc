"""One HTML file from a payload: style, code, plotting library and data inside, nothing fetched.

Two walls against hostile names. The data are compressed and in base64, so no byte of them can be markup, and the page's
code puts text into the document as text only. And the page's own security policy runs no script but the two whose
hashes it names, and lets nothing be fetched or sent.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from spectrum_fast.errors import BackendUnavailableError

_SCRIPTS = (
    "text.js",
    "theme.js",
    "data.js",
    "selection.js",
    "figure.js",
    "heatmap.js",
    "experts.js",
    "ranks.js",
    "spectrum.js",
    "compare.js",
    "table.js",
    "details.js",
    "main.js",
)
"""In the order they are put together; each one uses those before it."""


def render_page(payload: Mapping[str, Any], title: str) -> str:
    """The text of the page.

    Raises:
        BackendUnavailableError: plotly, whose JavaScript library is put into the page, is not installed.
    """
    library = plotly_library()
    code = '"use strict";\n(() => {\n' + "\n".join(map(asset, _SCRIPTS)) + "\n})();\n"
    if "</script" in code.lower() or "<!--" in code:
        raise AssertionError("the page's code would end its own element")  # assets are ours; a test renders them
    replacements = {
        "POLICY": content_policy(code, library),
        "TITLE": html.escape(title),
        "STYLE": asset("style.css"),
        "LIBRARY": _packed(library.encode("utf-8")),
        "DATA": _packed(json.dumps(payload, allow_nan=False, separators=(",", ":")).encode("utf-8")),
        "CODE": code,
    }
    return fill_in("page.html", replacements)


def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return (files("spectrum_fast.use.report.html") / "assets" / name).read_text("utf-8")


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """A page of ``assets/`` with a value for every ``%%KEY%%``; no value is looked into for further keys."""
    parts = asset(template).split("%%")  # text, KEY, text, KEY, ..., text
    return "".join(values[part] if index % 2 else part for index, part in enumerate(parts))


def plotly_library() -> str:
    """The source of plotly.js as the package plotly brings it.

    Raises:
        BackendUnavailableError: the package is not installed, or holds no library.
    """
    try:
        from plotly.offline import get_plotlyjs

        return get_plotlyjs()
    except (ImportError, OSError) as cause:
        raise BackendUnavailableError(
            f"report: expected the package plotly, found none that can be used ({cause}); "
            "install it with: pip install 'spectrum-fast[report]'"
        ) from cause


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")


def content_policy(*scripts: str) -> str:
    """The security policy of a page that runs these scripts and no other, and fetches nothing."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode('utf-8')).digest()).decode()}'" for s in scripts
    )
    # plotly sets styles one by one, and draws an exported picture through a blob or data address.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
