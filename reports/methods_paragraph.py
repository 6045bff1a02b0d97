"""The methods paragraph of a paper: every setting in sentences, with a heading for each topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import methods_search, methods_training
from reports.fronts import Study
from reports.latex import tex_escape
from reports.load import Sweep
from reports.markup import esc
from reports.paper_style import PaperTable, rule
from reports.paper_tables import markdown_escape

NAME = "methods_paragraph"


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Some sentences under a heading."""

    title: str
    text: str


def topics(sweep: Sweep, studies: Sequence[Study], table: PaperTable | None) -> tuple[Topic, ...]:
    """Everything that is known of how the numbers came about; () for a sweep without trials."""
    if not studies:
        return ()
    chosen = methods_search.selection(sweep, studies)
    if table is not None and not all(study.single for study in studies):
        how = rule(studies, table)
        chosen = [*chosen, f"In the table, {how[0].lower()}{how[1:]}"]
    found = {
        "Data": methods_training.data(sweep, studies),
        "Networks": methods_training.networks(sweep),
        "Methods": methods_training.methods(sweep),
        "Optimisation": methods_training.optimisation(sweep),
        "Search": methods_search.search(sweep, studies),
        "Selection": chosen,
        "Measures": methods_search.measures(sweep, studies),
        "Software": methods_search.software(sweep),
    }
    return tuple(Topic(title=title, text=" ".join(sentences)) for title, sentences in found.items() if sentences)


def markdown(found: Sequence[Topic]) -> str:
    """A paragraph per topic, its heading bold."""
    return "\n\n".join(f"**{topic.title}.** {markdown_escape(topic.text)}" for topic in found) + "\n"


def latex(found: Sequence[Topic]) -> str:
    """A ``paragraph`` per topic."""
    return "\n\n".join(rf"\paragraph{{{topic.title}.}} {tex_escape(topic.text)}" for topic in found) + "\n"


def html(found: Sequence[Topic]) -> str:
    """A paragraph per topic, its heading bold."""
    return "".join(f"<p><b>{esc(topic.title)}.</b> {esc(topic.text)}</p>" for topic in found)


def section(found: Sequence[Topic]) -> str:
    """The paragraph on the page; "" where there is nothing to tell."""
    if not found:
        return ""
    return f"<h2>How it was done</h2>{html(found)}<p>For a paper: {esc(f'tables/{NAME}.tex and .md')}.</p>"


def write_paragraph(found: Sequence[Topic], folder: Path) -> list[Path]:
    """``methods_paragraph.md`` and ``.tex`` in a folder."""
    written = []
    for suffix, text in (("md", markdown(found)), ("tex", latex(found))):
        path = folder / f"{NAME}.{suffix}"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
