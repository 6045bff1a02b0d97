"""Sources that are a csv file: a row per image."""

from __future__ import annotations

import csv
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from repsim.data.listing import SPLITS, Listing, first_mistakes, printable, refuse_special, stamp_files
from repsim.errors import Mistake, RequestError, nearest, one_line


@dataclass(frozen=True)
class _Row:
    line: int
    cells: dict[str, str]
    more: int
    """Cells beyond the header's."""


def list_csv(path: Path, *, group: str | None = None) -> Listing:
    """List the rows of ``path``: columns image (relative to the csv), label, and optionally split and group.

    ``group`` names another column to group by; without it a column called ``group`` is used when there is one. Comma,
    semicolon and tab are recognised as separators. Raises :class:`RequestError` with every wrong row.
    """
    title = str(path)
    header, rows = _read(path)
    group_column = "group" if group is None else group
    mistakes = _header_mistakes(title, header, group, group_column)
    if mistakes:
        raise RequestError(*mistakes)
    if not rows:
        raise RequestError(Mistake(where=title, key="", problem="has no rows below its header"))
    grouped = group_column in header
    own_split = any(row.cells.get("split") for row in rows)
    wrong = _row_mistakes(path, rows, group_column if grouped else None, own_split)
    if wrong:
        raise RequestError(*first_mistakes(wrong, title))
    rows.sort(key=lambda row: _name(path, row.cells["image"]))
    files = [path.parent / row.cells["image"] for row in rows]
    return Listing(
        title=title,
        names=tuple(_name(path, row.cells["image"]) for row in rows),
        labels=tuple(row.cells["label"] for row in rows),
        splits=tuple(row.cells["split"].lower() for row in rows) if own_split else None,
        groups=tuple(row.cells[group_column] for row in rows) if grouped else None,
        stamp=stamp_files(path.parent, files),
        read=lambda: files,
    )


def _header_mistakes(title: str, header: list[str], group: str | None, group_column: str) -> list[Mistake]:
    shown = _bare(", ".join(header))
    mistakes = [
        Mistake(
            where=title,
            key="",
            problem=f"has no column {name!r}; there are {shown}",
            allowed="image, label, and optionally split and group",
        )
        for name in ("image", "label")
        if name not in header
    ]
    if group is not None and group not in header:
        problem = f"has no column {one_line(group)}"
        near = nearest(group, header)
        mistakes.append(Mistake(where=title, key="data.group", problem=problem, allowed=shown, suggestion=near))
    mistakes += [
        Mistake(where=title, key="", problem=f"has {header.count(name)} columns called {one_line(name)}")
        for name in dict.fromkeys(("image", "label", "split", group_column))
        if header.count(name) > 1
    ]
    return mistakes


def _bare(text: str) -> str:
    """On one line, at most 200 characters, without quotes around it."""
    quoted = one_line(text, 200)
    return quoted[1:-1] if quoted[-1] == quoted[0] else quoted[1:]


def _read(path: Path) -> tuple[list[str], list[_Row]]:
    title = str(path)
    refuse_special(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=separator)
            table = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise RequestError(Mistake(where=title, key="", problem=f"cannot be read: {error.strerror}")) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(Mistake(where=title, key="", problem=f"is not a csv in UTF-8: {error}")) from None
    if not table:
        raise RequestError(Mistake(where=title, key="", problem="is empty", allowed="a header with image and label"))
    header = [_column(cell) for cell in table[0][1]]
    return header, [_row(line, header, [cell.strip() for cell in cells]) for line, cells in table[1:]]


def _row(line: int, header: list[str], cells: list[str]) -> _Row:
    filled = max((number for number, cell in enumerate(cells, start=1) if cell), default=0)
    return _Row(line, dict(zip(header, cells, strict=False)), more=max(0, filled - len(header)))


def _column(cell: str) -> str:
    """The columns this module knows are recognised in any case; every other keeps its spelling."""
    name = cell.strip()
    return name.lower() if name.lower() in ("image", "label", "split", "group") else name


def _name(path: Path, image: str) -> str:
    """Where the image is, seen from the csv's folder: the same name after the folder was copied elsewhere."""
    file = Path(image)
    if file.is_absolute() and file.is_relative_to(path.parent.absolute()):
        file = file.relative_to(path.parent.absolute())
    return printable(posixpath.normpath(file.as_posix()).lstrip("/"))


def _row_mistakes(path: Path, rows: list[_Row], group: str | None, own_split: bool) -> list[Mistake]:
    mistakes = []
    seen: dict[str, int] = {}
    for row in rows:
        where = f"{path}: line {row.line}"
        image = row.cells.get("image", "")
        if row.more > 0:
            problem = f"has {row.more} more cell{'' if row.more == 1 else 's'} than the header"
            mistakes.append(Mistake(where=where, key="", problem=problem, allowed="a comma in a name needs quotes"))
        if not image:
            mistakes.append(Mistake(where=where, key="image", problem="is empty"))
        elif not os.path.isfile(path.parent / image):
            mistakes.append(Mistake(where=where, key="image", problem=f"there is no file {one_line(image)}"))
        else:
            name = _name(path, image)
            if name in seen:
                problem = f"{one_line(name)} is listed twice, first in line {seen[name]}"
                mistakes.append(Mistake(where=where, key="image", problem=problem))
            seen.setdefault(name, row.line)
        if not row.cells.get("label"):
            mistakes.append(Mistake(where=where, key="label", problem=f"is empty (image {one_line(image)})"))
        if group is not None and not row.cells.get(group):
            mistakes.append(Mistake(where=where, key=group, problem=f"is empty (image {one_line(image)})"))
        part = row.cells.get("split", "").lower()
        if own_split and part not in SPLITS:
            problem = f"{one_line(part)} is not a part of a split" if part else "is empty"
            mistakes.append(
                Mistake(
                    where=where,
                    key="split",
                    problem=problem,
                    allowed=", ".join(SPLITS),
                    suggestion=nearest(part, SPLITS),
                )
            )
    return mistakes
