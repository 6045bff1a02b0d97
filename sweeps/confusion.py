"""Which class was taken for which: a confusion matrix from a trial's predictions, as csv and as a page."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repsim.records import PROBABILITY_PREFIX

_STYLE = """\
:root { color-scheme: light dark; --shade: #1f77b4 }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem }
table { border-collapse: collapse }
th, td { padding: .3rem .6rem; text-align: right; border: 1px solid #8884 }
th[scope=row] { text-align: left }
caption { text-align: left; padding-bottom: .6rem }
"""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """``counts[i][j]`` images of class i were taken for class j; both in the order of ``classes``."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def confusion(columns: Mapping[str, Sequence[object]]) -> Confusion:
    """From columns of predictions: ``label`` and ``predicted``, and a probability per class, which name the classes.

    Raises KeyError for a label that is no class.
    """
    classes = tuple(name.removeprefix(PROBABILITY_PREFIX) for name in columns if name.startswith(PROBABILITY_PREFIX))
    place = {name: index for index, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for label, predicted in zip(columns["label"], columns["predicted"], strict=True):
        counts[place[str(label)]][place[str(predicted)]] += 1
    return Confusion(classes=classes, counts=tuple(map(tuple, counts)))


def csv_text(found: Confusion) -> str:
    """A row per true class, a column per predicted one."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["true class", *found.classes])
    rows.writerows([name, *row] for name, row in zip(found.classes, found.counts, strict=True))
    return text.getvalue()


def page(found: Confusion, title: str) -> str:
    """A page of its own, without scripts: cells are shaded by their share of the true class."""
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in found.classes)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{_cells(row)}</tr>\n'
        for name, row in zip(found.classes, found.counts, strict=True)
    )
    images = sum(map(sum, found.counts))
    right = sum(row[index] for index, row in enumerate(found.counts))
    caption = f"{html.escape(title)}: {right} of {images} images right. Rows: true class. Columns: predicted class."
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><table><caption>{caption}</caption>\n"
        f"<thead><tr><td></td>{columns}</tr></thead>\n<tbody>\n{rows}</tbody></table></body></html>\n"
    )


def _cells(row: Sequence[int]) -> str:
    total = sum(row)
    shares = [100.0 * count / total if total else 0.0 for count in row]
    return "".join(
        f'<td style="background:color-mix(in srgb, var(--shade) {0.7 * share:.0f}%, transparent)"'
        f' title="{share:.1f} % of the row">{count}</td>'
        for count, share in zip(row, shares, strict=True)
    )
