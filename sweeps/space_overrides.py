"""``--set KEY=VALUE`` and the flags that stand for one: changes to a space document before it is judged."""

from __future__ import annotations

from dataclasses import dataclass

from repsim.errors import nearest, one_line
from sweeps.space_domains import searchable_keys
from sweeps.space_notes import Notes
from sweeps.space_rules import TOP_KEYS
from sweeps.space_settings import SECTIONS
from sweeps.space_types import STRENGTH_KEYS
from sweeps.space_yaml import parse_yaml

_DOTTED = tuple(f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys)
_NARROWING = ("method", "backbone", "data")


@dataclass(kw_only=True)
class Edits:
    """Changes ``document`` in place and tells ``notes`` which flag each change came from.

    ``narrowed`` becomes True when methods, backbones or data were replaced.
    """

    document: dict[str, object]
    notes: Notes
    narrowed: bool = False

    def apply(self, override: str) -> None:
        """One ``KEY=VALUE``; what is wrong with it is noted."""
        key, equals, text = override.partition("=")
        key = key.strip()
        flag = f"--set {one_line(key)[1:-1]}"
        heard = Notes(where=flag)
        if not equals or not key:
            heard.add("", f"{one_line(override)} is not KEY=VALUE", allowed="for example budget.trials=4")
        place = self._place(key) if not heard.mistakes else None
        if place is None and not heard.mistakes:
            allowed = [*TOP_KEYS, *_DOTTED, *searchable_keys()]
            heard.add(
                "", "is not a known key", allowed="a key of the file, or of a trial", suggestion=nearest(key, allowed)
            )
        value = parse_yaml(text, heard) if place is not None else None
        self.notes.mistakes += heard.mistakes
        if place is None or heard.mistakes:
            return
        if key in searchable_keys() and isinstance(value, dict | list) and key != "data.fractions":
            place = ("space", key)
        self.put(flag, place, value)

    @staticmethod
    def _place(key: str) -> tuple[str, ...] | None:
        """Where a dotted key stands in the document; a trial's key is fixed. None when it stands nowhere."""
        first, dot, rest = key.partition(".")
        if key in TOP_KEYS:
            return (key,)
        if key in searchable_keys():
            return ("fixed", key)
        if dot and rest and (first in SECTIONS or first in ("fixed", "space")):
            return (first, rest)
        return None

    def put(self, flag: str, place: tuple[str, ...], value: object) -> None:
        """Set a value at the top (one name) or in a section (two), as said by ``flag``."""
        if len(place) == 1:
            self.document[place[0]] = value
        else:
            section, key = place
            inner = self.document.setdefault(section, {})
            if inner is None:
                inner = self.document[section] = {}
            if not isinstance(inner, dict):
                return
            inner[key] = value
            if section in ("fixed", "space"):
                self._forget("space" if section == "fixed" else "fixed", key)
                for other in STRENGTH_KEYS if key in STRENGTH_KEYS else ():
                    if other != key:
                        self._forget("space", other)
                        self._forget("fixed", other)
            if place == ("budget", "epochs"):
                self._forget("fixed", "optim.epochs")
                self._forget("space", "optim.epochs")
        self.narrowed |= place[-1] in _NARROWING or place[-1] in ("fixed", "space")
        self.notes.said[".".join(place)] = flag

    def _forget(self, section: str, key: str) -> None:
        """The last word counts: a key that is set in one section leaves the other."""
        inner = self.document.get(section)
        if isinstance(inner, dict):
            inner.pop(key, None)
