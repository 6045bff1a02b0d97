"""What is wrong with a document, collected while it is read, and the small readers that fill the collection."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repsim.errors import Mistake, nearest, one_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAME_ALLOWED = "letters, digits, _ . and -, at most 64, the first a letter or digit"


@dataclass(kw_only=True)
class Notes:
    """Mistakes of one document. ``said`` maps dotted keys to the flag that put their value there."""

    where: str
    said: dict[str, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def add(self, key: str, problem: str, *, allowed: str = "", suggestion: str | None = None) -> None:
        """Note a mistake at a dotted key; a value that came from a flag is blamed on the flag."""
        where = self.where
        for said, flag in self.said.items():
            if key == said or key.startswith((f"{said}.", f"{said}[")):
                where, key = flag, key[len(said) :].lstrip(".")
                break
        mistake = Mistake(where=where, key=key, problem=problem, allowed=allowed, suggestion=suggestion)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    def unknown_key(self, key: str, name: object, allowed: Sequence[str]) -> None:
        """Note a key that does not exist in its section."""
        self.add(key, "is not a known key", allowed=", ".join(allowed), suggestion=nearest(name, allowed))


def join(path: str, key: object) -> str:
    """``budget`` and ``trials`` make ``budget.trials``; a key that is no text is shown as YAML shows it."""
    name = key if isinstance(key, str) and key.isprintable() else one_line(key)
    return f"{path}.{name}" if path else name


def check_keys(notes: Notes, path: str, value: Mapping[Any, object], allowed: Sequence[str]) -> None:
    """Note every key that is not allowed."""
    for key in value:
        if key not in allowed:
            notes.unknown_key(join(path, key), key, allowed)


def section(notes: Notes, document: Mapping[str, object], key: str, allowed: Sequence[str]) -> Mapping[str, object]:
    """A mapping at the top level; empty when it is missing (or holds nothing) or is something else, which is noted."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        notes.add(key, f"{one_line(value)} is not a section", allowed=f"{{{', '.join(f'{k}: …' for k in allowed)}}}")
        return {}
    check_keys(notes, key, value, allowed)
    return value


def text_number_hint(value: object) -> str:
    """How to write a number that YAML took for text (``1e-5``), in brackets; empty for anything else."""
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    matched = re.fullmatch(r"([+-]?\d+)(\.\d*)?(?:[eE]([+-]?)(\d+))?", value.strip())
    if matched is None:
        return ""
    whole, fraction, sign, exponent = matched.groups()
    if exponent is None:
        return " (text: write it without quotes)"
    return f" (YAML reads it as text: write {whole}{fraction or '.0'}e{sign or '+'}{exponent})"


def boolean_hint(value: object) -> str:
    """Why there is a boolean where a person wrote a word, in brackets; empty for anything else."""
    if not isinstance(value, bool):
        return ""
    return " (YAML reads yes, no, on and off as true and false: put the word in quotes)"


def finite(value: object) -> float | None:
    """The value as a finite number; None when it is none (booleans are none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def integer(notes: Notes, key: str, value: object, *, low: int, high: int, otherwise: int) -> int:
    """A whole number from ``low`` to ``high``; ``otherwise`` after noting a mistake."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    hint = text_number_hint(value) + boolean_hint(value)
    notes.add(key, f"{one_line(value)} is not allowed{hint}", allowed=f"a whole number from {low} to {high}")
    return otherwise


def number(notes: Notes, key: str, value: object, *, above: float, inclusive: bool = False) -> float | None:
    """A finite number above (or at) a bound; None after noting a mistake."""
    found = finite(value)
    if found is not None and (found > above or (inclusive and found == above)):
        return found
    hint = text_number_hint(value) + boolean_hint(value)
    allowed = f"a number {'from' if inclusive else 'above'} {above:g}"
    notes.add(key, f"{one_line(value)} is not allowed{hint}", allowed=allowed)
    return None


def word(notes: Notes, key: str, value: object, allowed: Sequence[str]) -> str:
    """One of a few words; the first of them after noting a mistake."""
    if isinstance(value, str) and value in allowed:
        return value
    begun = [name for name in allowed if isinstance(value, str) and value and name.startswith(value)]
    notes.add(
        key,
        f"{one_line(value)} is not allowed{boolean_hint(value)}",
        allowed=", ".join(allowed),
        suggestion=begun[0] if begun else nearest(value, allowed),
    )
    return allowed[0]


def name_problem(value: object) -> str | None:
    """Why ``value`` cannot name a folder and an MLflow run or experiment; None when it can."""
    if not isinstance(value, str):
        return f"{one_line(value)} is not text (put it in quotes)"
    if NAME.fullmatch(value) is None:
        return f"{one_line(value)} cannot be a name"
    return None
