"""Reads what a key may be: scalars, lists of choices, ranges, and values that depend on others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, method_names, parse_method
from repsim.config import FLAT_KEYS, TrialConfig
from repsim.errors import RequestError, nearest, one_line
from repsim.method_spelling import ALLOWED_METHODS, method_mistake, nearest_method
from sweeps.space_conditions import WHEN_KEYS, matches
from sweeps.space_notes import Notes, boolean_hint, check_keys, finite, join, text_number_hint
from sweeps.space_types import STRENGTH_KEYS, Branch, Choice, Domain, Range

REFUSED: Final = object()
"""Stands for a value whose mistake has been noted."""
_RANGE_KEYS = ("low", "high", "log")
_BRANCH_KEYS = ("value", *_RANGE_KEYS, "when")
_PENALISED = next(name for name in method_names() if parse_method(name).penalty is not None)


def canonical(notes: Notes, key: str, path: str, value: object) -> object:
    """``value`` as the trial's configuration spells it (methods short, whole floats as floats), or REFUSED."""
    flat = {"method": _PENALISED, key: value} if key in STRENGTH_KEYS else {key: value}
    try:
        found = TrialConfig.from_flat(flat).flat()[key]
    except RequestError as error:
        _refuse(notes, key, path, value, error)
        return REFUSED
    return tuple(found) if isinstance(found, list) else found


def _refuse(notes: Notes, key: str, path: str, value: object, error: RequestError) -> None:
    """Say what the configuration says about a value, once, with the hints a YAML file deserves."""
    hint = text_number_hint(value) + boolean_hint(value)
    if key == "method":
        found = method_mistake(path, key, value)
        notes.add(path, found.problem + hint, allowed=found.allowed, suggestion=found.suggestion)
        return
    problem = error.mistakes[0].problem
    allowed = " or ".join(dict.fromkeys(mistake.allowed for mistake in error.mistakes if mistake.allowed))
    names: Sequence[str] = re.findall(r"'([^']+)'", allowed)
    if key == "head":
        names = tuple(HEADS)
        problem = f"{one_line(value)} is not a known {key}"
    elif allowed:
        problem = f"{one_line(value)} is not allowed"
    notes.add(path, problem + hint, allowed=allowed, suggestion=nearest(value, names))


def read_branches(notes: Notes, key: str, path: str, value: object) -> tuple[Branch, ...]:
    """Everything ``space`` may say about a key; empty after noting a mistake."""
    if isinstance(value, Mapping):
        branch = _branch(notes, key, path, value)
        return () if branch is None else (branch,)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return _dependent(notes, key, path, value)
    domain = read_domain(notes, key, path, value)
    return () if domain is None else (Branch(when={}, domain=domain),)


def _dependent(notes: Notes, key: str, path: str, items: Sequence[object]) -> tuple[Branch, ...]:
    branches = []
    for number, item in enumerate(items):
        here = f"{path}[{number}]"
        if not isinstance(item, Mapping):
            notes.add(
                here,
                f"{one_line(item)} stands among values that depend on others",
                allowed="{when: {…}, value: …}, and last {value: …}",
            )
            continue
        branch = _branch(notes, key, here, item)
        if branch is None:
            continue
        if not branch.when and number < len(items) - 1:
            notes.add(
                here, "holds everywhere, so what follows it is never reached", allowed="a 'when', or the last place"
            )
        branches.append(branch)
    return tuple(branches)


def _branch(notes: Notes, key: str, path: str, value: Mapping[object, object]) -> Branch | None:
    check_keys(notes, path, value, _BRANCH_KEYS)
    before = len(notes.mistakes)
    when = read_when(notes, f"{path}.when", value["when"]) if "when" in value else {}
    understood = len(notes.mistakes) == before
    if "value" in value:
        for extra in _RANGE_KEYS:
            if extra in value:
                notes.add(f"{path}.{extra}", "stands beside 'value'", allowed="either value, or low and high")
        domain = read_domain(notes, key, f"{path}.value", value["value"])
    else:
        domain = _range(notes, key, path, value)
    return Branch(when=when, domain=domain) if domain is not None and understood else None


def read_domain(notes: Notes, key: str, path: str, value: object) -> Domain | None:
    """A range, a list of choices or a scalar; None after noting a mistake."""
    if isinstance(value, Mapping):
        check_keys(notes, path, value, _RANGE_KEYS)
        return _range(notes, key, path, value)
    if not isinstance(value, list):
        found = _choice(notes, key, path, value)
        return None if found is REFUSED else Choice(values=(found,))
    if not value:
        notes.add(path, "is an empty list", allowed="at least one value")
        return None
    found_values = [_choice(notes, key, f"{path}[{number}]", item) for number, item in enumerate(value)]
    kept = [item for item in found_values if item is not REFUSED]
    for number, item in enumerate(kept):
        if item in kept[:number]:
            notes.add(path, f"names {one_line(item)} twice", allowed="each value once")
    return Choice(values=tuple(kept)) if kept else None


def _choice(notes: Notes, key: str, path: str, value: object) -> object:
    if value is None:
        notes.add(path, "is empty (null stands for an absent value)", allowed="a value, or no such key")
        return REFUSED
    if isinstance(value, list | Mapping):
        notes.add(path, f"{one_line(value)} is not a single value", allowed="a value, a list of values, or {low, high}")
        return REFUSED
    return canonical(notes, key, path, value)


def _range(notes: Notes, key: str, path: str, value: Mapping[object, object]) -> Range | None:
    ends: list[float] = []
    for end in ("low", "high"):
        if end not in value:
            if all(key in _BRANCH_KEYS for key in value):  # else it is the misspelt key that was noted
                notes.add(path, f"has no {end}", allowed="low and high, or value")
            continue
        given, here = value[end], f"{path}.{end}"
        found = finite(given)
        if found is None:
            hint = text_number_hint(given) + boolean_hint(given)
            notes.add(here, f"{one_line(given)} is not a finite number{hint}", allowed="a number such as 1.0e-5")
        elif canonical(notes, key, here, given) is not REFUSED:
            ends.append(found)
    log = value.get("log", False)
    if not isinstance(log, bool):
        notes.add(f"{path}.log", f"{one_line(log)} is not allowed", allowed="true, false")
        return None
    if len(ends) < 2:
        return None
    low, high = ends
    if low >= high:
        relation = "equals" if low == high else "is above"
        notes.add(path, f"low {low:g} {relation} high {high:g}", allowed="low < high (one value: write it alone)")
        return None
    if log and low <= 0:
        notes.add(f"{path}.low", f"{low:g} cannot be the lower end on a log scale", allowed="a number above 0")
        return None
    whole = all(isinstance(value[end], int) for end in ("low", "high")) and not _takes_fractions(key, low)
    return Range(low=int(low), high=int(high), log=log, integer=True) if whole else Range(low=low, high=high, log=log)


def _takes_fractions(key: str, near: float) -> bool:
    return canonical(Notes(where=""), key, key, near + 0.5) is not REFUSED


def read_when(notes: Notes, path: str, value: object) -> dict[str, tuple[str, ...]]:
    """Conditions; those that were not understood are noted and left out."""
    if not isinstance(value, Mapping) or not value:
        notes.add(path, f"{one_line(value)} is not a condition", allowed=f"{{{', '.join(WHEN_KEYS)}: …}}")
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for key, given in value.items():
        here = join(path, key)
        if not isinstance(key, str) or key not in WHEN_KEYS:
            notes.unknown_key(here, key, WHEN_KEYS)
            continue
        patterns = [_pattern(notes, key, here, item) for item in (given if isinstance(given, list) else [given])]
        if not patterns:
            notes.add(here, "is an empty list", allowed="at least one value")
        found[key] = tuple(dict.fromkeys(pattern for pattern in patterns if pattern is not None))
    return found


def _pattern(notes: Notes, key: str, path: str, value: object) -> str | None:
    """One value of a ``when``: known adapters, penalties and methods are checked here, the rest by the space's own."""
    if not isinstance(value, str) or not value.strip():
        hint = " (write none)" if value is None else boolean_hint(value)
        notes.add(path, f"{one_line(value)} is not allowed{hint}", allowed="a name, a glob, any, none")
        return None
    known: dict[str, Sequence[str | None]] = {
        "method": method_names(),
        "adapter": tuple(ADAPTERS),
        "penalty": (None, *PENALTIES),
    }
    if key not in known:
        return value
    pattern = _short(value) if key == "method" else value
    if not any(matches(pattern, name) for name in known[key]):
        problem, more = f"{one_line(value)} matches no {key}", ["any", "none"] if key == "penalty" else ["any"]
        names = [name for name in known[key] if name is not None] + more
        if key == "method":
            notes.add(path, problem, allowed=f"any, {ALLOWED_METHODS}", suggestion=nearest_method(value))
        else:
            notes.add(path, problem, allowed=", ".join(names), suggestion=nearest(value, names))
        return None
    return pattern


def _short(method: str) -> str:
    try:
        return parse_method(method).name
    except ValueError:
        return method


def searchable_keys() -> tuple[str, ...]:
    """Keys of a trial's configuration that ``fixed`` may hold: everything but the data's source and the seed."""
    return tuple(key for key in FLAT_KEYS if key not in ("data", "seed"))
