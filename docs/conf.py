"""Sphinx configuration; `make docs` builds the pages into build/docs."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

project = "epitaxy"
author = "The epitaxy developers"
copyright = "The epitaxy developers, Apache-2.0"
release = version = installed_version("epitaxy")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = [
    "datasets/*/structures",
    "example-plugin/src",
    "**/README.md",
    "_generated/README.md",
]
html_theme = "furo"
html_title = f"epitaxy {release}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_use_ivar = True  # attributes are fields anyway: described once
autodoc_mock_imports: list[str] = []
suppress_warnings = ["myst.xref_missing", "myst.header"]


def write_component_pages(app: Any) -> None:
    """Write one page with what `epitaxy show` prints of every installed component."""
    from epitaxy.cli import main
    from epitaxy.registry import Registry

    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    lines = [
        "# Components",
        "",
        "Everything that the installed plugins offer, as `epitaxy show` prints it.",
        "",
    ]
    for offer in Registry.from_entry_points():
        name = f"{offer.kind}/{offer.qualified_name}"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(["show", name])
        if status:
            raise RuntimeError(f"`epitaxy show {name}` ended with status {status}")
        lines += [f"## {name}", "", "```text", printed.getvalue().rstrip(), "```", ""]
    (folder / "components.md").write_text("\n".join(lines))


def escape_markup(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Let "(n, *shape)" and "|F|" in docstrings stand as they are; ``code`` is left alone."""
    for index, line in enumerate(lines):
        if not line.startswith(".."):
            pieces = line.split("``")
            pieces[::2] = [re.sub(r"(?<!\\)([*|])(?=\S)", r"\\\1", piece) for piece in pieces[::2]]
            lines[index] = "``".join(pieces)


def setup(app: Any) -> None:
    """Hook the page writer into the build."""
    app.connect("builder-inited", write_component_pages)
    app.connect("autodoc-process-docstring", escape_markup, priority=900)
