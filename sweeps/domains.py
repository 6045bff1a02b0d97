"""Points of a search space: choosing them key by key, listing them, and spelling them for Optuna.

A proposal's params map every searched key to its value, None where a condition switches it off. Optuna sees a choice by
its index (so that True, 1 and 1.0 stay apart, and lists are allowed) and knows one domain per name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from repsim.config import TrialConfig
from sweeps.space import Choice, Dimension, Domain, Range, Space

ENUMERABLE = 4096
"""Spaces of at most this many points are enumerated (exact coverage, exact exhaustion)."""
Params = dict[str, object]
_DEFAULTS = TrialConfig().flat()


def walk(space: Space, data: str, choose: Callable[[str, Domain], object]) -> Params:
    """Choose a value for every key in order, define-by-run; absent ones become None, single values aren't asked for."""
    chosen: Params = {}
    for dimension in space.dimensions:
        domain = space.domain(dimension.key, chosen, data)
        if domain is None:
            chosen[dimension.key] = None
            continue
        single = _single(domain)
        chosen[dimension.key] = single[0] if single else choose(parameter_name(dimension, domain), domain)
    return chosen


def parameter_name(dimension: Dimension, domain: Domain) -> str:
    """The key, with ``@n`` where its branches hold different domains (Optuna wants one domain per name)."""
    distinct = _distinct(dimension)
    return dimension.key if len(distinct) == 1 else f"{dimension.key}@{distinct.index(domain)}"


def encode(space: Space, data: str, params: Mapping[str, object]) -> dict[str, tuple[object, BaseDistribution]] | None:
    """Params as Optuna sees them (choices by their index), or None when they do not lie in the space."""
    encoded: dict[str, tuple[object, BaseDistribution]] = {}
    searched = {dimension.key for dimension in space.dimensions}
    if any(space.fixed.get(key, _DEFAULTS[key]) != value for key, value in params.items() if key not in searched):
        return None
    chosen: Params = {}
    for dimension in space.dimensions:
        domain = space.domain(dimension.key, chosen, data)
        value = params.get(dimension.key)
        chosen[dimension.key] = value
        if domain is None:
            if value is not None:
                return None
            continue
        internal = _internal(domain, value)
        if internal is None:
            return None
        if not _single(domain):
            encoded[parameter_name(dimension, domain)] = (internal, _distribution(domain))
    return encoded


def silent_genes(space: Space) -> dict[str, BaseDistribution]:
    """Every name a proposal may have to choose, whatever the conditions say."""
    return {
        parameter_name(dimension, domain): _distribution(domain)
        for dimension in space.dimensions
        for domain in _distinct(dimension)
        if not _single(domain)
    }


def enumerate_points(
    space: Space, data: str, values: Callable[[Domain], Sequence[object] | None], limit: int = ENUMERABLE
) -> list[Params] | None:
    """Every combination of ``values(domain)``; None when there are over ``limit``, or when ``values`` gives None."""
    points: list[Params] = [{}]
    for dimension in space.dimensions:
        longer: list[Params] = []
        for point in points:
            domain = space.domain(dimension.key, point, data)
            options = (None,) if domain is None else values(domain)
            if options is None or len(longer) + len(options) > limit:
                return None
            longer.extend({**point, dimension.key: option} for option in options)
        points = longer
    return points


def key_of(name: str) -> str:
    """The searched key of a parameter name."""
    return name.rpartition("@")[0] or name


def _distinct(dimension: Dimension) -> list[Domain]:
    found: list[Domain] = []  # not a set: choices may hold lists
    for branch in dimension.branches:
        if branch.domain not in found:
            found.append(branch.domain)
    return found


def _single(domain: Domain) -> tuple[object, ...]:
    """The only value, as a tuple of one; empty when there is a choice."""
    if isinstance(domain, Choice):
        return domain.values if len(domain.values) == 1 else ()
    return (_number(domain, domain.low),) if domain.low == domain.high else ()


def _number(domain: Range, value: float) -> int | float:
    return round(value) if domain.integer else float(value)


def listed(domain: Domain) -> Sequence[object]:
    """A choice's values; None stands for whatever a range will give."""
    return domain.values if isinstance(domain, Choice) else (None,)


def all_values(domain: Domain) -> Sequence[object] | None:
    """Every value there is, or None when they cannot be listed."""
    if isinstance(domain, Choice):
        return domain.values
    if domain.integer:
        return range(round(domain.low), round(domain.high) + 1)
    return _single(domain) or None


def scaled(domain: Domain, unit: float) -> int | float:
    """``unit`` in [0, 1] to the range; both ends are reached exactly, integers get equal shares."""
    if isinstance(domain, Choice):
        raise TypeError("a choice has no scale")
    low, high = (domain.low - 0.5, domain.high + 0.5) if domain.integer else (domain.low, domain.high)
    value = low * (high / low) ** unit if domain.log else low + unit * (high - low)
    return _number(domain, min(max(value, domain.low), domain.high))


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(range(len(domain.values))))
    if domain.integer:
        return IntDistribution(round(domain.low), round(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def suggest(trial: optuna.Trial, name: str, domain: Domain) -> object:
    """A value of the domain, from the trial's sampler."""
    if isinstance(domain, Choice):
        return domain.values[trial.suggest_categorical(name, tuple(range(len(domain.values))))]
    if domain.integer:
        return trial.suggest_int(name, round(domain.low), round(domain.high), log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _internal(domain: Domain, value: object) -> object:
    """The value as Optuna stores it, or None when it is not in the domain."""
    if isinstance(domain, Choice):
        same = (i for i, option in enumerate(domain.values) if option == value and type(option) is type(value))
        return next(same, None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not domain.low <= value <= domain.high:
        return None
    if domain.integer and value != round(value):
        return None
    return _number(domain, value)


def uniform(distribution: BaseDistribution, unit: float) -> object:
    """``unit`` in [0, 1) to a value as Optuna stores it."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(unit * len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        return scaled(Range(low=distribution.low, high=distribution.high, log=distribution.log, integer=True), unit)
    if isinstance(distribution, FloatDistribution):
        return scaled(Range(low=distribution.low, high=distribution.high, log=distribution.log), unit)
    raise TypeError(f"{distribution} is not a distribution of a space")
