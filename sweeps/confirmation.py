"""Which points of the front were luck: fresh seeds for every configuration that may belong to it.

Functions of the finished runs of one data set and of nothing else, so a resumed sweep goes on where it was. The front
that a search shows is made of runs that were picked for their values, so their luck is picked with them; a
configuration's mean over seeds that the search did not see is free of that. ``docs/search.md`` has the formulas.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import compress

from repsim.front import dominates, nondominated
from repsim.records import Objective

LEAST_SEEDS = 3
"""Fresh seeds of each anchor, and the fewest a candidate may be asked to have."""
COUNTED = frozenset({"val_accuracy", "val_balanced_accuracy"})
"""Shares of images, which have a binomial error (for the balanced one, whose classes weigh the same, it is a guess)."""

Feasible = Callable[[Mapping[str, float]], bool]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended, for good. ``values`` are the metrics of a completed one, None of a failed or pruned one.

    ``confirms``: it is one of the fresh seeds asked for here, not the search's own run.
    """

    config_id: str
    seed: int
    values: Mapping[str, float] | None
    confirms: bool
    anchor: bool = False


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A configuration over its ``n`` completed fresh seeds: each metric's mean and standard error (None for n = 1)."""

    config_id: str
    n: int
    means: Mapping[str, float]
    errors: Mapping[str, float | None]
    on_front: bool


class End(StrEnum):
    """Why no further run is due; ``NOT_YET`` while one is."""

    NOT_YET = "not yet"
    UNCHANGED = "membership unchanged"
    BUDGET = "budget spent"
    OFF = "not asked for"
    NOTHING = "nothing to confirm"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run next: ``due`` as (config_id, seed), in order, those under way included. ``reason`` is in words.

    ``margins`` is δ by metric and ``candidates`` are the configurations that may be on the front (config_ids), both
    empty until the anchors have shown how far luck reaches.
    """

    due: tuple[tuple[str, int], ...]
    end: End
    reason: str
    margins: Mapping[str, float] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()


def summary(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, its standard error s / sqrt(n) (None for one value) and n. Raises ValueError without values."""
    if not values:
        raise ValueError("no values to take a mean of")
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error, len(values)


def delta(anchor_values: Mapping[str, Sequence[Sequence[float]]], n_val: int) -> dict[str, float]:
    """How much of a difference luck may explain, per metric: δ = s + SE.

    ``anchor_values`` holds, per metric, each anchor's values over its seeds. s is their pooled standard deviation,
    sqrt(Σ (x - mean of its anchor)² / Σ (seeds of an anchor - 1)); SE = sqrt(p (1 - p) / n_val) with p the mean over
    anchors and seeds for a share of images, 0 for other metrics. Raises ValueError where no anchor has two values, or
    for a share with ``n_val`` below 1.
    """
    found = {}
    for metric, groups in anchor_values.items():
        known = [list(group) for group in groups if len(group) > 1]
        if not known:
            raise ValueError(f"{metric}: no anchor has two values, so nothing is known about their spread")
        squares = sum((x - statistics.fmean(group)) ** 2 for group in known for x in group)
        spread = math.sqrt(squares / sum(len(group) - 1 for group in known))
        share = statistics.fmean([x for group in known for x in group])
        found[metric] = spread + (_binomial(share, n_val) if metric in COUNTED else 0.0)
    return found


def candidates(
    runs: Sequence[Run], margins: Mapping[str, float], objectives: Sequence[Objective], feasible: Feasible | None = None
) -> list[str]:
    """Configurations that no other dominates by more than δ, in the order of the runs.

    ``margins`` is δ per objective's metric. A configuration is out when another one's search run, set back by δ in
    every objective, still dominates its own. Only completed search runs that are ``feasible`` take part.
    """
    directions = [objective.direction for objective in objectives]
    points = {run.config_id: _point(run.values, objectives) for run in _searched(runs, feasible)}
    # whom a point set back dominates, one of the front dominates that is set back as much
    front = compress(points.values(), nondominated(list(points.values()), directions))
    worse = [
        tuple(
            value - margins[o.metric] if o.direction == "maximize" else value + margins[o.metric]
            for value, o in zip(point, objectives, strict=True)
        )
        for point in front
    ]
    return [name for name, point in points.items() if not any(dominates(other, point, directions) for other in worse)]


def front_of_means(
    runs: Sequence[Run], config_ids: Sequence[str], objectives: Sequence[Objective], feasible: Feasible | None = None
) -> list[Mean]:
    """Means over the completed fresh seeds of these configurations; on the front are the feasible, non-dominated ones.

    The search's own run is left out. A configuration without a completed fresh seed is not listed.
    """
    confirming = [run for run in runs if run.confirms]
    fresh = {name: [run.values for run in _fresh(confirming, name) if run.values is not None] for name in config_ids}
    found: list[tuple[str, int, dict[str, float], dict[str, float | None]]] = []
    for name, rows in fresh.items():
        if rows:
            metrics = [metric for metric in rows[0] if all(metric in row for row in rows)]
            told = {metric: summary([row[metric] for row in rows]) for metric in metrics}
            means, errors = {m: mean for m, (mean, _, _) in told.items()}, {m: se for m, (_, se, _) in told.items()}
            found.append((name, len(rows), means, errors))
    fit = [feasible is None or feasible(means) for _, _, means, _ in found]
    points = [_point(means, objectives) for (_, _, means, _), good in zip(found, fit, strict=True) if good]
    kept = iter(nondominated(points, [objective.direction for objective in objectives]))
    return [
        Mean(config_id=name, n=n, means=means, errors=errors, on_front=good and next(kept))
        for (name, n, means, errors), good in zip(found, fit, strict=True)
    ]


def next_runs(
    runs: Sequence[Run],
    objectives: Sequence[Objective],
    *,
    n_val: int,
    seeds: int,
    search_seed: int,
    max_runs: int,
    feasible: Feasible | None = None,
) -> Plan:
    """The confirmation runs that are due after these, once the search is over.

    First three fresh seeds of each anchor, which give δ. Then ``seeds`` of every candidate. Then one more seed for all
    of them, until the front of the means has the same members as before it. Fresh seeds are ``search_seed`` + 1, + 2 …
    A run that failed is not tried again: its configuration has a mean over fewer. At most ``max_runs`` confirmation
    runs are made, anchors and failed ones included; a further round that would not fit is not begun.
    Raises ValueError for ``seeds`` of 1 or 2.
    """
    if seeds == 0:
        return _ended(End.OFF, "no fresh seeds were asked for: n = 1, no error bars")
    if seeds < LEAST_SEEDS:
        raise ValueError(f"seeds must be 0 or at least {LEAST_SEEDS}, not {seeds}")
    searched = _searched(runs, feasible)
    if not searched:
        return _ended(End.NOTHING, "no search run completed within the constraints")
    budget = _Budget(done={(run.config_id, run.seed) for run in runs if run.confirms}, most=max_runs)
    anchors = list(dict.fromkeys(run.config_id for run in _searched(runs, None) if run.anchor))
    plan = budget.take(_grid(anchors, search_seed, LEAST_SEEDS), "three seeds of each anchor")
    if plan is not None:
        return plan
    # later seeds of the anchors do not count: δ, and with it who is a candidate, stays what it was
    confirming = [run for run in runs if run.confirms]
    early = [run for run in confirming if run.seed <= search_seed + LEAST_SEEDS]
    margins = _margins(early, anchors, objectives, n_val)
    if margins is None:
        if len({run.config_id for run in searched}) > 1:
            return _ended(End.NOTHING, "no anchor completed two fresh seeds, so it is not known what luck may explain")
        margins = {objective.metric: 0.0 for objective in objectives}
    chosen = candidates(runs, margins, objectives, feasible)
    plan = budget.take(_grid(chosen, search_seed, seeds), f"{seeds} seeds of each of {len(chosen)} candidates")
    if plan is None:
        plan = _until_still(confirming, chosen, objectives, feasible, budget, search_seed, seeds)
    return replace(plan, margins=margins, candidates=tuple(chosen))


def _until_still(
    runs: Sequence[Run],
    chosen: Sequence[str],
    objectives: Sequence[Objective],
    feasible: Feasible | None,
    budget: _Budget,
    search_seed: int,
    seeds: int,
) -> Plan:
    """One more seed of every candidate, again and again, until the front has the same members as one seed before."""
    before = _members(runs, chosen, objectives, feasible, search_seed + seeds)
    last = search_seed + seeds
    while True:
        last += 1
        due = [(name, last) for name in chosen]
        plan = budget.take(due, "one more seed of each candidate", whole=True)
        if plan is not None:
            return plan
        now = _members(runs, chosen, objectives, feasible, last)
        if now == before:
            n = last - search_seed
            return _ended(End.UNCHANGED, f"the front kept its {len(now)} members when every candidate had seed {n}")
        before = now


@dataclass(frozen=True, kw_only=True)
class _Budget:
    """The confirmation runs made, and how many there may be."""

    done: set[tuple[str, int]]
    most: int

    def take(self, wanted: Sequence[tuple[str, int]], what: str, *, whole: bool = False) -> Plan | None:
        """A plan for those of ``wanted`` that are not done, or None when all are; ``whole``: all of them or none."""
        due = [one for one in wanted if one not in self.done]
        left = max(0, self.most - len(self.done))
        if not due:
            return None
        if left == 0 or (whole and left < len(due)):
            said = f"{len(self.done)} of {self.most} confirmation runs are made; {what} would take {len(due)} more"
            return _ended(End.BUDGET, said)
        return Plan(due=tuple(due[:left]), end=End.NOT_YET, reason=what)


def _ended(end: End, reason: str) -> Plan:
    return Plan(due=(), end=end, reason=reason)


def _grid(names: Sequence[str], search_seed: int, seeds: int) -> list[tuple[str, int]]:
    """Seed by seed, so that a budget which ends early leaves all configurations about the same number."""
    return [(name, search_seed + number) for number in range(1, seeds + 1) for name in names]


def _margins(
    runs: Sequence[Run], anchors: Sequence[str], objectives: Sequence[Objective], n_val: int
) -> dict[str, float] | None:
    fresh = [[run.values for run in _fresh(runs, name) if run.values is not None] for name in anchors]
    if not any(len(rows) > 1 for rows in fresh):
        return None
    return delta({o.metric: [[row[o.metric] for row in rows] for rows in fresh] for o in objectives}, n_val)


def _members(
    runs: Sequence[Run], names: Sequence[str], objectives: Sequence[Objective], feasible: Feasible | None, last: int
) -> set[str]:
    early = [run for run in runs if run.seed <= last]
    return {mean.config_id for mean in front_of_means(early, names, objectives, feasible) if mean.on_front}


def _searched(runs: Sequence[Run], feasible: Feasible | None) -> list[Run]:
    completed = [run for run in runs if not run.confirms and run.values is not None]
    return [run for run in completed if feasible is None or (run.values is not None and feasible(run.values))]


def _fresh(runs: Sequence[Run], config_id: str) -> list[Run]:
    """A configuration's confirmation runs by seed, whatever the order they ended in."""
    return sorted((run for run in runs if run.confirms and run.config_id == config_id), key=lambda run: run.seed)


def _point(values: Mapping[str, float] | None, objectives: Sequence[Objective]) -> tuple[float, ...]:
    if values is None:
        raise ValueError("a run without values has no place among the objectives")
    return tuple(values[objective.metric] for objective in objectives)


def _binomial(share: float, n: int) -> float:
    if n < 1:
        raise ValueError(f"n_val must be at least 1, not {n}")
    return math.sqrt(share * (1.0 - share) / n)
