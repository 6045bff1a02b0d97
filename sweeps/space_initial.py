"""Points that a person wants tried first: read, judged, and completed into proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repsim.config import TrialConfig
from repsim.errors import Mistake, RequestError, nearest, one_line
from sweeps.space_domains import REFUSED, canonical
from sweeps.space_notes import Notes, check_keys, join
from sweeps.space_types import Choice, Dimension, Domain, Space, contains

Params = dict[str, object]
_DEFAULTS: Mapping[str, object] = TrialConfig().flat()


def read_initial(notes: Notes, value: object, dimensions: Sequence[Dimension]) -> tuple[Mapping[str, object], ...]:
    """Mappings of searched keys, each value as the configuration spells it."""
    if value is None:
        return ()
    if not isinstance(value, list):
        notes.add("initial", f"{one_line(value)} is not a list", allowed="[{KEY: VALUE, …}, …] of searched keys")
        return ()
    searched = [dimension.key for dimension in dimensions]
    found: list[Mapping[str, object]] = []
    for position, item in enumerate(value):
        here = f"initial[{position}]"
        if not isinstance(item, Mapping) or not item:
            notes.add(here, f"{one_line(item)} is not a point", allowed=f"{{KEY: VALUE, …}} of {', '.join(searched)}")
            continue
        check_keys(notes, here, item, searched)
        known = {str(key): given for key, given in item.items() if key in searched}
        point = {key: canonical(notes, key, join(here, key), given) for key, given in known.items()}
        found.append({key: given for key, given in point.items() if given is not REFUSED})
    return tuple(found)


def check_initial(notes: Notes, space: Space) -> None:
    """Note which of the points do not lie in the space, on any of its data sets."""
    for position, given in enumerate(space.initial):
        for data in space.data:
            try:
                space.config(completed(space, data, given), data=data, seed=space.search.seed)
            except RequestError as error:
                for mistake in error.mistakes:
                    here = join(f"initial[{position}]", mistake.key)
                    notes.add(here, mistake.problem, allowed=mistake.allowed, suggestion=mistake.suggestion)


def completed(space: Space, data: str, given: Mapping[str, object]) -> Params:
    """A proposal with these values; RequestError when one of them does not lie in the space.

    What is not given takes its default where that lies in the space, else the first choice or the nearer end of the
    range; keys that do not occur beside the method and backbone are None.
    """
    params: Params = {}
    for dimension in space.dimensions:
        key = dimension.key
        domain = space.domain(key, params, data)
        if key in given and (domain is None or not contains(domain, given[key])):
            raise RequestError(_outside(key, given[key], domain, params))
        if key in given or domain is None:
            params[key] = given.get(key)
        else:
            method = params.get("method") or space.fixed.get("method", _DEFAULTS["method"])
            params[key] = _default(key, domain, method)
    return params


def _default(key: str, domain: Domain, method: object) -> object:
    """A strength has a default where the method has a penalty."""
    default = (TrialConfig.from_flat({"method": method}).flat() if key == "strength" else _DEFAULTS)[key]
    if contains(domain, default):
        return default
    if isinstance(domain, Choice):
        return domain.values[0]
    return domain.high if isinstance(default, int | float) and default > domain.high else domain.low


def _outside(key: str, value: object, domain: Domain | None, params: Mapping[str, object]) -> Mistake:
    beside = ", ".join(f"{name} {params[name]}" for name in ("method", "backbone") if params.get(name) is not None)
    if domain is None:
        return Mistake(where="initial", key=key, problem=f"does not occur beside {beside}", allowed="no such key here")
    if isinstance(domain, Choice):
        names = [str(option) for option in domain.values]
        allowed, suggestion = ", ".join(names), nearest(str(value), names)
    else:
        allowed, suggestion = f"{domain.low:g} to {domain.high:g}", None
    problem = f"{one_line(value)} is not in the space" + (f" beside {beside}" if beside else "")
    return Mistake(where="initial", key=key, problem=problem, allowed=allowed, suggestion=suggestion)
