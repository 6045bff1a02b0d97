"""What is wrong with a method that cannot be read, and what was probably meant: one line, never a list of all of them.

Standard library only, as :mod:`repsim.catalogue` is.
"""

from __future__ import annotations

from collections.abc import Iterable

from repsim.catalogue import ADAPTERS, PENALTIES
from repsim.errors import Mistake, nearest, one_line

ALLOWED_METHODS = (
    f"ADAPTER, PENALTY or ADAPTER+PENALTY with adapters: {', '.join(ADAPTERS)}; penalties: {', '.join(PENALTIES)}"
)
_MOVING = tuple(info.name for info in ADAPTERS.values() if info.trains_backbone)


def method_mistake(where: str, key: str, value: object) -> Mistake:
    """The mistake in a ``value`` that :func:`repsim.catalogue.parse_method` refuses, or that is no text."""
    text = value if isinstance(value, str) else ""
    first, plus, second = text.partition("+")
    if not plus:
        problem = f"{one_line(value)} is not a known method"
        return Mistake(where=where, key=key, problem=problem, allowed=ALLOWED_METHODS, suggestion=nearest_method(value))
    problem, allowed = _two_parts(first, second, one_line(text)), ALLOWED_METHODS
    if first in ADAPTERS and second in PENALTIES:
        problem = f"{one_line(text)} makes no sense: {first} does not move the backbone, so a penalty has no effect"
        allowed = f"{first} alone, or a penalty beside {', '.join(_MOVING)}"
    return Mistake(where=where, key=key, problem=problem, allowed=allowed, suggestion=nearest_method(text))


def nearest_method(value: object) -> str | None:
    """The spelling closest to ``value``, each part of it judged alone and put in its place; None when none is close."""
    first, plus, second = str(value).partition("+")
    if not plus:
        return nearest(value, [*ADAPTERS, *PENALTIES])
    for adapter, penalty in ((first, second), (second, first)):
        found = _meant(adapter, _MOVING), _meant(penalty, PENALTIES)
        if None not in found:
            return "+".join(part for part in found if part is not None)
    return None


def _meant(part: str, known: Iterable[str]) -> str | None:
    names = list(known)
    return part if part in names else nearest(part.strip(), names)


def _two_parts(first: str, second: str, text: str) -> str:
    """What is wrong with ``first+second``, when it is the spelling."""
    if first in PENALTIES and second in ADAPTERS:
        return f"{text} is the wrong way round: the adapter comes first, then the penalty"
    wrong = [
        f"{one_line(part)} in {text} is not a known {kind}"
        for part, kind, known in ((first, "adapter", ADAPTERS), (second, "penalty", PENALTIES))
        if part not in known
    ]
    return ", and ".join(wrong)
