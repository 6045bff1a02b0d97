"""Where something holds: the ``when`` of a searched key or of a setting."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from repsim.catalogue import parse_method

WHEN_KEYS: tuple[str, ...] = ("method", "adapter", "penalty", "backbone", "data")
"""What a ``when`` may ask about."""
When = Mapping[str, tuple[str, ...]]
"""Key to its patterns: every key must match one of them; empty holds everywhere."""


def holds(when: When, *, method: str, backbone: str, data: str) -> bool:
    """Whether every condition is met. ``method`` may be any spelling that :func:`parse_method` reads."""
    parsed = parse_method(method)
    facts = {
        "method": parsed.name,
        "adapter": parsed.adapter,
        "penalty": parsed.penalty,
        "backbone": backbone,
        "data": data,
    }
    return all(any(matches(pattern, facts[key]) for pattern in patterns) for key, patterns in when.items())


def matches(pattern: str, value: str | None) -> bool:
    """Whether a ``when`` pattern fits: a literal, a glob, ``any`` (there is a value) or ``none`` (there is none)."""
    if pattern == "none":
        return value is None
    if value is None:
        return False
    return pattern in ("any", value) or fnmatchcase(value, pattern)


def when_document(when: When) -> dict[str, object]:
    """As people write it; a single pattern stands alone."""
    return {key: list(patterns) if len(patterns) > 1 else patterns[0] for key, patterns in when.items()}
