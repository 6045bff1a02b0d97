"""Errors a person can act on.

A request that is wrong is described by :class:`Mistake` values, one line each: the file, the key, the value, what is
allowed, and the nearest valid spelling. Command lines print them on stderr and exit with status 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?")


def nearest(value: object, allowed: Iterable[str]) -> str | None:
    """The allowed spelling closest to ``value``, or None when nothing is close."""
    matches = difflib.get_close_matches(str(value).lower(), list(allowed), n=1, cutoff=0.6)
    return matches[0] if matches else None


def one_line(value: object, limit: int = 80) -> str:
    """``repr`` of a value from a user, kept printable, on one line and at most ``limit`` characters long."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_numbers(text: str) -> str:
    """``text`` with every number as ``#``: reasons that differ in their numbers alone have one cause."""
    return _NUMBER.sub("#", text)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing wrong with a request.

    ``where`` is the file or flag it was written in, ``key`` the dotted key (may be empty), ``problem`` a sentence part
    that follows them, ``allowed`` what would have been right, ``suggestion`` the nearest valid spelling.
    """

    where: str
    key: str
    problem: str
    allowed: str = ""
    suggestion: str | None = None

    def __str__(self) -> str:
        parts = [part for part in (self.where, self.key) if part]
        text = ": ".join([*parts, self.problem])
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.suggestion is not None:
            text += f"; did you mean {self.suggestion!r}?"
        return " ".join(text.split())


def unknown(where: str, key: str, value: object, allowed: Sequence[str], what: str) -> Mistake:
    """The mistake of naming a ``what`` (method, backbone, key …) that does not exist."""
    return Mistake(
        where=where,
        key=key,
        problem=f"{one_line(value)} is not a known {what}",
        allowed=", ".join(allowed),
        suggestion=nearest(value, allowed),
    )


class RequestError(Exception):
    """The request is wrong; nothing was started. ``mistakes`` holds at least one :class:`Mistake`."""

    def __init__(self, *mistakes: Mistake) -> None:
        if not mistakes:
            raise ValueError("a RequestError needs at least one mistake")
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


class NonFiniteLossError(RuntimeError):
    """The training loss or its gradient became NaN or infinite; raised before the step that would spoil the weights."""


class DegenerateInputError(ValueError):
    """A measure is not defined on this input (fewer than 4 rows, or features without any variance)."""
