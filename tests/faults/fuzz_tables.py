"""csv files that are wrong: cells, headers, rows, separators and bytes."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable

from tests.faults.fuzz_parts import Case, changed_bytes

PICTURES = "pictures"
"""The folder that csv files name images in, seen from theirs."""
Table = list[list[str]]


def csv_case(rng: random.Random) -> Case:
    extra = rng.choice(((), (), ("split",), ("group",), ("split", "group"), ("note",)))
    table = [["image", "label", *extra]]
    for number in range(20):
        cells = {"split": ("train", "val", "test", "train")[number // 4 % 4], "group": f"p{number // 2}", "note": "x"}
        label = ("benign", "malignant")[number % 2]
        table.append([f"{PICTURES}/{number:02d}.png", label, *(cells[name] for name in extra)])
    for _ in range(rng.randint(0, 2)):
        rng.choice(_TABLE_CHANGES)(rng, table)
        table = table or [[""]]
    content = _csv_text(rng, table).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        content = changed_bytes(rng, content)
    group = ("--set", f"data.group={rng.choice(('group', 'note', 'Group', 'image', 'label', 'split', 'x', '[a]'))}")
    return Case(
        arguments=("--space", "sound.yaml", *(group if rng.random() < 0.15 else ())), path="case.csv", content=content
    )


def _odd_cell(rng: random.Random, table: Table) -> None:
    row = rng.choice(table)
    at = rng.randrange(len(row)) if row else 0
    row[at : at + 1] = rng.choices(
        (
            *(
                "",
                " ",
                "\x00",
                "\n",
                "a\nb",
                "\r",
                'quo"te',
                "'",
                ",",
                ";",
                "\t",
                "é",
                "🩺",
                "\udcff",
                "\u202e",
                "\ufeff",
            ),
            *(
                "x" * 300,
                "y" * 140_000,
                "=1+1",
                "-1",
                "1e5",
                "nan",
                "None",
                "TRAIN",
                "Val",
                "valid",
                "holdout",
                "../../x",
            ),
            *("<script>alert(1)</script>", "/etc/passwd", "..", ".", "/", "~", "~nobody-here/x.png", f"{PICTURES}/"),
            *(f"{PICTURES}/folder.png", f"{PICTURES}/broken.png", f"{PICTURES}/text.png", f"{PICTURES}/gone.png"),
            *(f"{PICTURES}\\00.png", f"./{PICTURES}/../{PICTURES}/00.png", f"{PICTURES}/00.png\x00", "http://x/y.png"),
            *("a/" * 3000, "name/" + "z" * 256 + ".png", "case.csv", "%s{0}$x`y`", "\x1b[31m", "p0", "p1"),
        )
    )


def _odd_header(rng: random.Random, table: Table) -> None:
    header = table[0]
    at = rng.randrange(len(header)) if header else 0
    header[at : at + 1] = rng.choices(
        (
            *(
                "",
                " ",
                "Image",
                "LABEL",
                " image ",
                "imgae",
                "label",
                "image",
                "split",
                "group",
                "labels",
                "\ufeffimage",
            ),
            *("x" * 300, "a\nb", '"', "\x00", "é"),
        )
    )


def _odd_rows(rng: random.Random, table: Table) -> None:
    at = rng.randrange(len(table))
    change = rng.randrange(7)
    if change == 0:
        table[at] = table[at] + ["more"] * rng.randint(1, 3)
    elif change == 1:
        table[at] = table[at][:-1]
    elif change == 2:
        table.insert(at, list(table[at]))
    elif change == 3:
        del table[rng.choice((0, 1, 2, 5)) :]
    elif change == 4:
        table.insert(at, rng.choice(([], ["", ""], ["# comment"], list(table[0]))))
    elif change == 5:
        rng.shuffle(table)
    else:
        del table[at : at + rng.randint(1, 12)]


def _same_column(rng: random.Random, table: Table) -> None:
    """One value throughout a column, or a column gone."""
    at = rng.randrange(2)
    value = rng.choice(("", "a", "train", "val", "0", None))
    for row in table[1:]:
        if at < len(row):
            row[at : at + 1] = [] if value is None else [value]


def _absolute_images(rng: random.Random, table: Table) -> None:
    for row in table[1:]:
        if row:
            row[0] = rng.choice((f"/tmp/nowhere/{row[0]}", f"../{row[0]}", f"./{row[0]}", row[0]))


_TABLE_CHANGES: tuple[Callable[[random.Random, Table], None], ...] = (
    *(_odd_cell, _odd_cell, _odd_cell, _odd_header, _odd_rows, _odd_rows, _same_column, _absolute_images),
)


def _csv_text(rng: random.Random, table: Table) -> str:
    if rng.random() < 0.15:  # without a care for what the cells hold
        return rng.choice("\n\r;\t,").join(rng.choice(",;\t|").join(row) for row in table)
    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        delimiter=rng.choice(",,,;\t|"),
        lineterminator=rng.choice(("\n", "\n", "\r\n", "\r", "\n\n")),
        quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    )
    writer.writerows(table)
    return rng.choice(("", "", "", "\ufeff", "\n", "# made by hand\n")) + buffer.getvalue()
