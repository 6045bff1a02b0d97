"""What a sweep searched, as it recorded it: the values and ranges of each key, and on what they depend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from reports.values import finite

EDGE = 0.03
"""Share of a range, at either end, that counts as its end."""
LOWER, UPPER = "lower", "upper"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """``low`` to ``high``; with ``log``, positions in it are taken in the logarithm."""

    low: float
    high: float
    log: bool

    def end(self, value: float) -> str | None:
        """At which end ``value`` lies (LOWER or UPPER), if at one."""
        if self.log and min(self.low, value) <= 0:
            return None
        low, high, at = ((math.log(x) if self.log else x) for x in (self.low, self.high, value))
        position = (at - low) / (high - low)
        if position < EDGE:
            return LOWER
        return UPPER if position > 1 - EDGE else None


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A list of values; numbers in it have ends where there are at least three of them."""

    values: tuple[object, ...]

    def end(self, value: float) -> str | None:
        """As for an interval."""
        numbers = [number for item in self.values if (number := finite(item)) is not None]
        if len(numbers) < 3 or len(numbers) < len(self.values):
            return None
        if value == min(numbers):
            return LOWER
        return UPPER if value == max(numbers) else None


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A domain that holds where every key of ``when`` fits one of its patterns."""

    when: Mapping[str, tuple[str, ...]]
    domain: Interval | Choices


def branches(document: object) -> tuple[Branch, ...]:
    """What a space's file says about a key, in the spelling in which the sweep recorded it; () if it cannot be read."""
    if isinstance(document, list) and any(isinstance(item, Mapping) for item in document):
        return tuple(branch for item in document for branch in branches(item))
    if isinstance(document, list):
        return (Branch(when={}, domain=Choices(values=tuple(document))),)
    if not isinstance(document, Mapping):
        return ()
    asked = document.get("when", {})
    when = {str(key): _patterns(given) for key, given in asked.items()} if isinstance(asked, Mapping) else {}
    if "value" in document:
        given = document["value"]
        return (Branch(when=when, domain=Choices(values=tuple(given) if isinstance(given, list) else (given,))),)
    low, high = finite(document.get("low")), finite(document.get("high"))
    if low is None or high is None or low >= high:
        return ()
    return (Branch(when=when, domain=Interval(low=low, high=high, log=document.get("log") is True)),)


def _patterns(given: object) -> tuple[str, ...]:
    return tuple(str(item) for item in given) if isinstance(given, list) else (str(given),)


def fits(pattern: str, value: str | None) -> bool:
    """Whether a ``when`` pattern fits, as in a space's file: a literal, a glob, ``any`` or ``none``."""
    if pattern == "none":
        return value is None
    return value is not None and (pattern in ("any", value) or fnmatchcase(value, pattern))


def domain(found: Sequence[Branch], facts: Mapping[str, str | None]) -> Interval | Choices | None:
    """The domain under these conditions (method, adapter, penalty, backbone, data); None where the key is absent."""
    for branch in found:
        if all(any(fits(pattern, facts.get(key)) for pattern in wanted) for key, wanted in branch.when.items()):
            return branch.domain
    return None


def number(value: float) -> str:
    """``0.0003``, ``3e-5``, ``1200``: short, without the zeros that Python puts into an exponent."""
    text = f"{value:.4g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def value_words(value: object) -> str:
    """A setting's value in a sentence."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    found = finite(value) if isinstance(value, int | float) else None
    return str(value) if found is None else number(found)


def either(values: Sequence[object], word: str = "or") -> str:
    """``64``, ``64 or 96``, ``1, 2 or 3``."""
    texts = [value_words(value) for value in values]
    return f" {word} ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def branch_words(branch: Branch) -> str:
    """``from 0.03 to 30 on a log scale, where there is a penalty``."""
    where = branch.domain
    if isinstance(where, Interval):
        text = f"from {number(where.low)} to {number(where.high)}{' on a log scale' if where.log else ''}"
    else:
        text = f"{'' if len(where.values) == 1 else 'one of '}{', '.join(value_words(value) for value in where.values)}"
    conditions = [_condition(key, wanted) for key, wanted in branch.when.items()]
    return f"{text}, where {' and '.join(conditions)}" if conditions else text


def _condition(key: str, wanted: Sequence[str]) -> str:
    if tuple(wanted) == ("any",):
        return f"there is a {key}"
    if tuple(wanted) == ("none",):
        return f"there is no {key}"
    return f"the {key} is {either(wanted)}"
