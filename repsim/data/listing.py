"""What a source says about its images before any is decoded, and the checks every source shares."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from repsim.errors import Mistake, RequestError, one_line

SPLITS = ("train", "val", "test")
"""Names of the three parts, in this order everywhere."""
MIN_PER_CLASS = 3
"""Images (groups, when grouped) a class needs: one for each part."""
MOST_MISTAKES = 10
"""At most this many mistakes of one source are printed; the rest are counted."""

Pixels: TypeAlias = NDArray[np.uint8]
ImageItem: TypeAlias = Path | Pixels
"""One image before decoding: a file, or uint8 pixels (height, width) or (height, width, 3)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The images of a source, sorted by name.

    ``names`` are unique, relative, POSIX and printable; ``labels`` hold one class name per image; ``splits`` (train,
    val or test) and ``groups`` are None where the source has none. ``stamp`` changes whenever the images may have
    changed, and is cheap. ``read()`` gives the images in the same order; it may load a whole array.
    """

    title: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    stamp: str
    read: Callable[[], Sequence[ImageItem]]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the label numbers: by value when all are whole numbers, else by name."""
        return sort_classes(self.labels)


def sort_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct ``labels``, by value when all are whole numbers (2 before 10), else by name."""
    distinct = sorted(set(labels))
    if all(label.isascii() and label.isdigit() for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(distinct)


def printable(name: str) -> str:
    """``name`` as text that can be encoded: bytes of a file name that are not UTF-8 become ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def refuse_special(path: Path) -> None:
    """RequestError for a pipe, socket or device, which could be read for ever; a folder and nothing at all pass."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise RequestError(Mistake(where=str(path), key="", problem="is a pipe or a device, not a file"))


def stamp_files(root: Path, paths: Sequence[Path]) -> str:
    """Digest of where the files are, their sizes and their modification times; their content is not read."""
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    for path in paths:
        try:
            status = path.stat()
            described = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            described = "missing"
        digest.update(b"\0" + os.fsencode(path) + b"\0" + described.encode())
    return digest.hexdigest()


def first_mistakes(mistakes: Sequence[Mistake], where: str) -> list[Mistake]:
    """At most :data:`MOST_MISTAKES` of ``mistakes``, the last line saying how many more there are."""
    if len(mistakes) <= MOST_MISTAKES:
        return list(mistakes)
    rest = len(mistakes) - MOST_MISTAKES
    return [*mistakes[:MOST_MISTAKES], Mistake(where=where, key="", problem=f"and {rest} more mistakes of this kind")]


def check_enough(
    title: str,
    labels: Sequence[str],
    splits: Sequence[str] | None,
    groups: Sequence[str] | None,
    expected: tuple[str, ...] | None = None,
) -> None:
    """Refuse images that cannot be split into three parts which all hold every class.

    Raises :class:`RequestError`: fewer than two classes, a class with fewer than three images (groups), an own split
    that leaves a part or a class of a part empty, a group in two parts of an own split. ``expected`` are the classes
    there were before unreadable images were left out.
    """
    mistakes: list[Mistake] = []
    classes = sort_classes(labels) if expected is None else expected
    if len(classes) < 2:
        found = f"the single class {one_line(classes[0])}" if classes else "no image"
        raise RequestError(Mistake(where=title, key="", problem=f"holds {found}", allowed="two classes or more"))
    members: dict[str, set[str]] = defaultdict(set)
    if groups is not None:
        for label, group in zip(labels, groups, strict=True):
            members[label].add(group)
    counts = Counter(labels) if groups is None else Counter({label: len(found) for label, found in members.items()})
    what = "image" if groups is None else "group"
    for label in classes:
        if counts[label] < MIN_PER_CLASS:
            plural = "" if counts[label] == 1 else "s"
            problem = f"class {one_line(label)} has {counts[label]} {what}{plural}"
            mistakes.append(Mistake(where=title, key="", problem=problem, allowed=f"{MIN_PER_CLASS} or more"))
    if splits is not None:
        mistakes += _own_split_mistakes(title, classes, labels, splits, groups)
    if mistakes:
        raise RequestError(*first_mistakes(mistakes, title))


def _own_split_mistakes(
    title: str,
    classes: Sequence[str],
    labels: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[str] | None,
) -> list[Mistake]:
    mistakes = []
    for part in SPLITS:
        present = {label for label, own in zip(labels, splits, strict=True) if own == part}
        if not present:
            problem = f"its own split has no {part} image"
            mistakes.append(Mistake(where=title, key="split", problem=problem, allowed="some images in each part"))
            continue
        mistakes += [
            Mistake(
                where=title,
                key="split",
                problem=f"class {one_line(label)} has no {part} image",
                allowed="every class in each part",
            )
            for label in classes
            if label not in present
        ]
    if groups is not None:
        parts: dict[str, set[str]] = defaultdict(set)
        for group, own in zip(groups, splits, strict=True):
            parts[group].add(own)
        mistakes += [
            Mistake(
                where=title,
                key="split",
                problem=f"group {one_line(group)} is in {' and '.join(part for part in SPLITS if part in found)}",
                allowed="one part per group",
            )
            for group, found in sorted(parts.items())
            if len(found) > 1
        ]
    return mistakes
