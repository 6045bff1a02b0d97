"""The paper's table as csv (a line per entry, full precision), Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from reports.latex import stacked, table_float, tex_escape
from reports.markup import columns as table_columns
from reports.markup import esc, table_html
from reports.paper_style import BEST, SECOND, Entry, Measure, PaperTable, Row
from reports.paper_tables import MISSING, Table, markdown_escape, to_csv

NO_SEEDS = "†"
_NAME = 40
"""Characters of a data set's name that stand above its columns."""


def write_paper(table: PaperTable, folder: Path) -> list[Path]:
    """``paper.csv``, ``paper.md`` and ``paper.tex`` in a folder."""
    written = []
    for suffix, text in (("csv", to_csv(listed(table))), ("md", markdown(table)), ("tex", latex(table))):
        path = folder / f"paper.{suffix}"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def listed(table: PaperTable) -> Table:
    """A row per data set, backbone and method, with the trial that stands for it and what its values are of."""
    rows = []
    for data in table.data_sets:
        for row in table.rows:
            entry = row.entries.get(data)
            if entry is not None:
                values = (entry.values.get(measure.name) for measure in table.measures)
                where = (data, row.backbone, row.method, entry.trial_id, entry.strength, entry.head)
                rows.append((*where, entry.split, entry.n, *values))
    labels = [measure.label for measure in table.measures]
    return Table(
        name="paper",
        caption=table.caption,
        columns=("data", "backbone", "method", "trial", "strength", "head", "images", "n", *labels),
        rows=tuple(rows),
        metrics={measure.label: measure.metric("val") for measure in table.measures},
    )


def headings(data_sets: Sequence[str]) -> tuple[str, ...]:
    """Names short enough to stand above columns, by their ends; in full where that would make two the same."""
    short = tuple(name if len(name) <= _NAME else f"…{name[1 - _NAME :]}" for name in data_sets)
    return short if len(set(short)) == len(set(data_sets)) else tuple(data_sets)


def _columns(table: PaperTable) -> list[str]:
    """What stands under each data set's name."""
    return [f"{measure.label}{measure.arrow}" for measure in table.measures] + (["n"] if table.counted else [])


def _values(table: PaperTable, row: Row, data: str) -> list[tuple[str, str]]:
    """(text, mark) under a data set's name; a dagger where a single run stands among means."""
    entry = row.entries.get(data)
    if entry is None:
        return [(MISSING, "")] * len(_columns(table))
    values = [(_text(table, entry, measure), entry.marks.get(measure.name, "")) for measure in table.measures]
    return values + ([(str(entry.n), "")] if table.counted else [])


def _text(table: PaperTable, entry: Entry, measure: Measure) -> str:
    shown = entry.shown(measure)
    if not shown:
        return MISSING
    return shown if entry.confirmed or not table.counted else f"{shown}{NO_SEEDS}"


def markdown(table: PaperTable) -> str:
    """A pipe table; the best value bold, the second best underlined."""
    names = headings(table.data_sets)
    several = len(table.backbones) > 1
    lead = ["backbone", "method"] if several else ["method"]
    head = [*lead, *(f"{name}: {column}" for name in names for column in _columns(table))]
    wrap = {BEST: "**{}**", SECOND: "<u>{}</u>", "": "{}"}
    lines = ["| " + " | ".join(map(markdown_escape, head)) + " |", "|" + " --- |" * len(head)]
    for row in table.rows:
        cells = [markdown_escape(name) for name in ((row.backbone, row.method) if several else (row.method,))]
        for data in table.data_sets:
            cells += [wrap[mark].format(markdown_escape(text)) for text, mark in _values(table, row, data)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", markdown_escape(table.caption), ""])


def latex(table: PaperTable) -> str:
    """A booktabs table with a group of columns for each data set and a block of rows for each backbone."""
    names, columns = headings(table.data_sets), _columns(table)
    width, total = len(columns), 1 + len(columns) * len(table.data_sets)
    groups = [rf"\multicolumn{{{width}}}{{c}}{{{tex_escape(name)}}}" for name in names]
    starts = [2 + number * width for number in range(len(names))]
    rules = "".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts)
    heads, cells = ["method", *(column for _ in names for column in columns)], []
    lines = [
        r"\begin{tabular}{l" + ("r" * width) * len(names) + "}",
        r"\toprule",
        " & ".join(["", *groups]) + r" \\",
        rules,
        " & ".join(stacked(text) for text in heads) + r" \\",
    ]
    wrap = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}", "": "%s"}
    for backbone in table.backbones:
        lines.append(r"\midrule")
        if len(table.backbones) > 1:
            lines.append(rf"\multicolumn{{{total}}}{{l}}{{\emph{{{tex_escape(backbone)}}}}} \\")
        for row in table.rows:
            if row.backbone == backbone:
                values = [value for data in table.data_sets for value in _values(table, row, data)]
                cells.append([row.method, *(text for text, _ in values)])
                marked = [wrap[mark] % _powers(tex_escape(text)) for text, mark in values]
                lines.append(" & ".join([tex_escape(row.method), *marked]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return table_float(lines, caption=table.caption, label="tab:paper", heads=heads, cells=cells)


def _powers(text: str) -> str:
    """Numbers such as ``6.3e-05`` as people write them."""
    return re.sub(r"(?<=\d)e([-+]?)0*(\d+)", lambda found: rf"$\times10^{{{found[1].strip('+')}{found[2]}}}$", text)


def html(table: PaperTable) -> str:
    """The same for the page, and below it which trial stands for each method."""
    columns = _columns(table)
    names = "".join(f'<th scope="colgroup" colspan="{len(columns)}">{esc(data)}</th>' for data in table.data_sets)
    under = "".join(f'<th scope="col" class="n">{esc(text)}</th>' for _ in table.data_sets for text in columns)
    wrap = {BEST: "<b>{}</b>", SECOND: "<u>{}</u>", "": "{}"}
    body = []
    for backbone in table.backbones:
        if len(table.backbones) > 1:
            total = 1 + len(columns) * len(table.data_sets)
            body.append(f'<tr><th scope="rowgroup" colspan="{total}">{esc(backbone)}</th></tr>')
        for row in (row for row in table.rows if row.backbone == backbone):
            cells = [
                wrap[mark].format(esc(text)) for data in table.data_sets for text, mark in _values(table, row, data)
            ]
            values = "".join(f'<td class="n">{cell}</td>' for cell in cells)
            body.append(f'<tr><th scope="row">{esc(row.method)}</th>{values}</tr>')
    breadth = table_columns(1 + len(columns) * len(table.data_sets))
    chosen = table_html(listed(table), skip=("data",) if len(table.data_sets) == 1 else ())
    return (
        f'<div class="scroll" tabindex="0"><table class="paper"{breadth}><thead>'
        f'<tr><td></td>{names}</tr><tr><th scope="col">method</th>{under}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div><p>{esc(table.caption)}</p>"
        f"<details><summary>which trial stands for each method</summary>{chosen}</details>"
    )


def section(table: PaperTable | None) -> str:
    """The table on the page; "" where no trial has completed."""
    if table is None:
        return ""
    files = "tables/paper.tex, paper.md and paper.csv"
    return f"<h2>Methods by data set</h2>{html(table)}<p>For a paper: {esc(files)}.</p>"
