"""One HTML page that needs nothing else: a style, tables, figures as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0; font-size: 90% }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
.warning { border-left: 4px solid #c60; padding-left: .7em; margin: .4em 0 }
.wide { overflow-x: auto }
svg { max-width: 100%; height: auto }
.figures svg { width: 48%; min-width: 20em }
code { font-size: 85%; word-break: break-all }
@media print { body { margin: 0; font-size: 11px } table, svg { break-inside: avoid } }
"""


def html_page(title: str, parts: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: plain text.
        parts: of the body, as HTML.
    """
    head = f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    lines = ("<!DOCTYPE html>", f"{head}<style>{_STYLE}</style></head><body>", *parts)
    return "\n".join(lines) + "</body></html>\n"


def html_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain texts; one wider than the page scrolls."""
    head = "".join(f"<th>{escape(word)}</th>" for word in heading)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def as_svg(figure: Any) -> str:
    """Return a matplotlib figure as SVG for a page: text stays text, no date, equal each time."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "epitaxy"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=150)
    text = stream.getvalue()
    head, _, rest = text[text.index("<svg") :].partition("<metadata>")
    return head + rest.partition("</metadata>")[2]
