"""Whether a report is what reports/ writes, whatever the names in it: page and tables, read as others read them."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

OWN_TAGS = frozenset(
    {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "p",
            "h1",
            "h2",
            "h3",
            "ul",
            "li",
            "b",
            "div",
            "dl",
        ),
        *(
            "dt",
            "dd",
            "small",
            "figure",
            "figcaption",
            "picture",
            "source",
            "img",
            "wbr",
            "table",
            "thead",
            "tbody",
            "tr",
        ),
        *("th", "td", "u", "pre", "code", "details", "summary", "footer", "script", "a"),
    }
)


COLUMNS = re.compile(r"--columns:[0-9]+")
RUN_PAGE = re.compile(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}")
"""The only addresses on the page: runs in the MLflow UI."""


class Page(HTMLParser):
    """What a browser would make of the page: its elements with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"the page holds a comment: {data}")


def read_page(path: Path) -> Page:
    """The page, which must hold nothing but what reports/page.py writes."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag in OWN_TAGS
        assert "srcdoc" not in attributes
        if "style" in attributes:
            assert tag == "table"
            assert COLUMNS.fullmatch(attributes["style"] or "")
        if "href" in attributes:
            assert tag == "a"
            assert RUN_PAGE.fullmatch(attributes["href"] or "")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
        if tag == "script":
            assert attributes in ({}, {"type": "application/json", "data-figure": attributes.get("data-figure")})
    assert sum(tag == "script" and not attributes for tag, attributes in page.elements) in (0, 2)
    return page


def check_csv(text: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    return rows


def check_markdown(text: str, rows: int, columns: int) -> None:
    lines = text.split("\n\n")[0].split("\n")
    assert len(lines) == rows + 1  # the line of dashes
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {columns + 1}
    assert not re.search(r"<|(?<!\\)[`\[\]*]", text)


TEX_ESCAPES = re.compile(
    r"\\(?:textbackslash|textasciitilde|textasciicircum|textasciigrave|textless|textgreater|textbar|textquotedbl"
    r"|textquotesingle|textendash|textdagger|ldots)\{\}|\\[&%$#_{}]|\$\\(?:pm|rho|lambda|uparrow|downarrow)\$"
    r"|\$\\times10\^\{-?\d+\}\$|\{[-\[\]*]?\}"
)
TEX_SETTING = re.compile(r"\\(?:textbf|underline|emph|shortstack\[[lr]\]|multicolumn\{\d+\}\{[lcr]\})\{([^{}]*)\}")
"""What the table does with a text, once that is rid of escapes."""
SPAN = re.compile(r"^\s*\\multicolumn\{(\d+)\}")


def check_tex(text: str, rows: int, columns: int) -> None:
    body = [line for line in text.split("\n") if line.endswith(r" \\")]
    assert len(body) == rows
    for line in body:
        cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        assert sum(int(found[1]) if (found := SPAN.match(cell)) else 1 for cell in cells) == columns
        for cell in cells:
            left = TEX_SETTING.sub(_inside, TEX_ESCAPES.sub(" ", cell))
            assert not re.search(r"[\\{}%$#_^~\[\]*`\"]|--|''", left), cell
            assert left.isprintable()


def _inside(found: re.Match[str]) -> str:
    """The text that is set; in a stack, line by line."""
    return found[1].replace(r"\\", " ") if found[0].startswith(r"\shortstack") else found[1]


def check_paper(folder: Path, rows: int, data_sets: int) -> None:
    """The table in paper style, which is no list: methods against groups of columns, with marks."""
    marked = (folder / "paper.md").read_text("utf-8")
    plain = re.sub(r"(?<!\\)\*\*|</?u>", "", marked)
    lines = plain.split("\n\n")[0].split("\n")
    columns = len(re.findall(r"(?<!\\)\|", lines[1])) - 1
    check_markdown(plain, len(lines) - 1, columns)
    methods = len(lines) - 2
    assert rows <= methods * data_sets
    tex = (folder / "paper.tex").read_text("utf-8")
    several = lines[0].startswith("| backbone |")
    blocks = tex.count(r"\emph{") if several else 0
    check_tex(tex, 2 + blocks + methods, columns - several)


def check_tables(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of every csv; the three spellings of a table must hold the same number of cells."""
    found = {}
    for path in sorted((folder / "tables").glob("*.csv")):
        rows = check_csv(path.read_bytes().decode("utf-8"))
        found[path.stem] = rows
        if path.stem == "paper":
            check_paper(path.parent, len(rows) - 1, len({row[0] for row in rows[1:]}))
            continue
        check_markdown(path.with_suffix(".md").read_text("utf-8"), len(rows), len(rows[0]))
        tex = path.with_suffix(".tex").read_text("utf-8")
        printed = re.search(r"\\begin\{tabular\}\{([lr]+)\}", tex)
        assert printed is not None
        assert len(printed[1]) <= len(rows[0])  # what would not fit on a page is left out
        check_tex(tex, len(rows), len(printed[1]))
    return found
