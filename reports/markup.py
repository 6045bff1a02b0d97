"""Pieces of HTML that every part of the page is made of. What came from a person or a store goes through ``esc``."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence

from reports.paper_tables import Table

_NUMBERS = frozenset(
    {"strength", "optim.lr", "seed", "trials", "runs", "epochs", "completed", "pruned", "failed", "on the front"}
    | {"attempts", "n"}
)

_LONG = re.compile(r"(_+|[^\s_]{20})(?=\S)")


def esc(value: object) -> str:
    """Text for HTML, in elements and in quoted attributes."""
    return html.escape(str(value), quote=True)


def duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def image(svgs: tuple[str, str], alt: str) -> str:
    """Both drawings as data, the dark one for dark pages."""
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(text.encode("utf-8")).decode("ascii") for text in svgs
    )
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{esc(alt)}"></picture>'
    )


def pairs(values: Mapping[str, object]) -> str:
    """A list of names and values."""
    return '<dl class="pairs">' + "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in values.items()) + "</dl>"


def link(address: str, text: str) -> str:
    """A link to an http address; it opens beside the report and learns nothing of where that lies."""
    return f'<a href="{esc(address)}" target="_blank" rel="noopener noreferrer">{esc(text)}</a>'


def table_html(table: Table, long: Sequence[str] = (), skip: Sequence[str] = ()) -> str:
    """A table that scrolls inside its own box; columns named in ``long`` wrap, those in ``skip`` are left out."""
    shown = [column for column in table.columns if column not in skip]

    def kind(column: str) -> str:
        if column in long:
            return ' class="long"'
        return ' class="n"' if column in table.metrics or column in _NUMBERS else ""

    head = "".join(f'<th scope="col"{kind(column)}>{_cell(column)}</th>' for column in shown)
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind(c)}>{_cell(v)}</td>" for c, v in zip(table.columns, cells, strict=True) if c in shown)
        + "</tr>"
        for cells in table.cells()
    )
    return (
        f'<div class="scroll" tabindex="0"><table{columns(len(shown))}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    """A cell's text, which may break behind underscores and inside words that are longer than a column is wide."""
    return "<wbr>".join(esc(part) for part in _LONG.sub("\\1\0", text.replace("\0", "\ufffd")).split("\0"))


def columns(count: int) -> str:
    """The attribute that tells the page's style how many columns a table has, for its type on paper."""
    return f' style="--columns:{count}"'
