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


def write_model_pages(app: Any) -> None:
    """Write one page per model: where its equations come from, its options, what it can do."""
    import inspect
    import sys

    from epitaxy.options import options_of
    from epitaxy.registry import Registry

    folder = Path(app.srcdir) / "_generated" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry.from_entry_points()
    names = []
    for offer in registry.offers["model"]:
        name = offer.component.name
        target = registry.load("model", offer.qualified_name)
        source = inspect.getdoc(sys.modules[target.__module__]) or ""
        is_network = hasattr(target, "features") and hasattr(target, "parts")
        can = {
            "energies per atom, so it can be a potential": getattr(target, "gives_energies", True),
            "smooth forces and stress": getattr(target, "has_forces", True),
            "needs positions": not getattr(target, "composition_only", False),
            "a readout of its own (pooling `own`)": hasattr(target, "structure_features"),
            "a head as in the paper (`new_head`)": hasattr(target, "new_head"),
        }
        lines = [f"# {name}", "", offer.component.summary, "", "```text", source, "```", ""]
        lines += ["```text", (inspect.getdoc(target) or "").split("Args:")[0].strip(), "```", ""]
        if is_network:
            lines += ["## What it can do", "", "| | |", "|---|---|"]
            lines += [f"| {what} | {'yes' if holds else 'no'} |" for what, holds in can.items()]
            lines += [""]
        lines += ["## Options", "", "| option | default | meaning |", "|---|---|---|"]
        for option in options_of(target):
            default = "(required)" if option.required else f"`{option.default!r}`"
            meaning = option.doc.replace("|", "\\|")
            lines.append(f"| `{option.name}` | {default} | {meaning} |")
        lines += [
            "",
            f"`epitaxy show {name}` prints the same, `epitaxy check {name}` checks it.",
            "",
        ]
        (folder / f"{name}.md").write_text("\n".join(lines))
        names.append(name)
    page = [
        "# Models",
        "",
        "One page each, made from the code. Networks are used as a potential",
        "(`model: {use: painn, ...}`) where they give energies per atom, and for any other target",
        "as the body of a `property` model:",
        "",
        "```yaml",
        "model:",
        "  use: property",
        "  body: {use: cgcnn, width: 64}",
        "  targets: [formation_energy, band_gap]   # or name: {pooling: ..., likelihood: gaussian}",
        "  branch_by: method                       # a head per level of theory, or per tag",
        "```",
        "",
        "```{toctree}",
        *(f"models/{name}" for name in names),
        "```",
        "",
    ]
    (folder.parent / "models.md").write_text("\n".join(page))


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
    app.connect("builder-inited", write_model_pages)
    app.connect("autodoc-process-docstring", escape_markup, priority=900)
