"""The next point by what it is expected to add to the hypervolume, told by a model of every objective.

A stopped trial counts with the result that the stopping rule expects of it, as a measurement of little weight; one
that is running counts as if it had come out as the model says, so that slots do not all try the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.special import expit
from scipy.stats import norm

from repsim.front import nondominated
from repsim.records import METRICS, Objective
from sweeps.domains import Params, key_of, scaled, walk
from sweeps.judgement import Judgement
from sweeps.past import Past
from sweeps.space import Choice, Domain, Range, Space, contains
from sweeps.surrogate import Array, Encoding, Surrogate, expected_gain, squared_distances

POOL = 600
"""How many candidates are weighed for a proposal."""
DRAWS = 96
_DOUBT = 4.0
"""The variance of a guess, in terms of the variance of a measurement."""
_BELOW = 0.2
"""Values worse than the reference point by more than this share of the box say no more than that they are bad."""
_EDGE = 0.005
"""Nearer to 0 and 1 than this shares and similarities are not told apart."""
_STEP = 0.12
"""Standard deviation of a step away from a point of the front; a range spans 1."""
_KEEP = 0.7
"""Chance that a step leaves a key's choice as it is."""
_APART = 0.15
"""Points that differ by less, key by key, are the same question; asking it again is for the confirmation."""


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Between objectives as they are, as they are modelled, and as shares of the hypervolume's box (more is better)."""

    signs: Array
    bounded: NDArray[np.bool_]
    low: Array
    width: Array

    def modelled(self, values: Sequence[tuple[float, ...] | None]) -> Array:
        """The logit of shares and similarities, which end at 1 however much more is put in; others as they are.

        What lies far below the box is taken up to it: that a trial was hopeless is enough.
        """
        boxed = np.maximum((np.array(values, dtype=np.float64) * self.signs - self.low) / self.width, -_BELOW)
        kept = (self.low + self.width * boxed) * self.signs
        inside = np.clip(kept, _EDGE, 1 - _EDGE)
        found: Array = np.where(self.bounded, np.log(inside / (1 - inside)), kept)
        return found

    def boxed(self, modelled: Array) -> Array:
        """Modelled values as shares of the box: 0 at the reference point, 1 at the ideal."""
        values = np.where(self.bounded, expit(modelled), modelled)
        found: Array = (values * self.signs - self.low) / self.width
        return found


class Gain:
    """Ranks candidates over one space and data set. Holds no history."""

    def __init__(self, space: Space, data: str) -> None:
        self._space, self._data = space, data
        self._encoding = Encoding(space)
        self._judgement = Judgement(objectives=space.objectives, constraints=())
        self._bounded = np.array([_ends_at_one(objective) for objective in space.objectives])
        self._signs = np.array([1.0 if one.direction == "maximize" else -1.0 for one in space.objectives])

    def ranked(self, past: Sequence[Past], rng: np.random.Generator, only: Sequence[Params] | None) -> list[Params]:
        """Candidates, the most promising first; none as long as fewer than two trials have completed.

        ``only``: the points of a finite space that may be proposed.
        """
        completed = [entry for entry in past if entry.state is TrialState.COMPLETE and entry.values is not None]
        if len(completed) < 2:
            return []
        guessed = [entry for entry in past if entry.state is TrialState.PRUNED and entry.expected is not None]
        running = [entry for entry in past if entry.state is TrialState.RUNNING]
        feasible = np.array([entry.is_feasible for entry in completed])
        pool = self._pool(list(compress(completed, feasible)), rng) if only is None else _some(only, rng)
        if not pool:
            return []
        scale = self._scale(completed)
        told = scale.modelled([entry.values for entry in completed] + [entry.expected for entry in guessed])
        doubt = np.array([1.0] * len(completed) + [_DOUBT] * len(guessed))
        rows = self._rows([*completed, *guessed])
        waiting, wanted = self._rows(running), self._encoding.rows(pool)
        leading = np.vstack([rows[: len(completed)][feasible], waiting])
        models = [Surrogate(rows, column, self._encoding.groups, doubt).believing(waiting) for column in told.T]
        mean, spread = (np.stack(parts, axis=1) for parts in zip(*(one.predict(wanted) for one in models), strict=True))
        front = scale.boxed(np.stack([one.predict(leading)[0] for one in models], axis=1))
        gain = expected_gain(mean, spread, front, DRAWS, rng, scale.boxed)
        gain *= self._chance(completed, wanted) * self._chance_to_end(past, wanted)
        gain[self._is_tried(wanted, self._rows(past))] = -1.0
        return [pool[index] for index in np.argsort(-gain, kind="stable")]

    def _is_tried(self, wanted: Array, tried: Array) -> Array:
        """Which points differ from one that was tried by no choice, and by next to nothing in every number."""
        apart = np.sqrt(squared_distances(wanted, tried, self._encoding.groups)).max(axis=0)
        found: Array = (apart < _APART).any(axis=1)
        return found

    def _rows(self, entries: Sequence[Past]) -> Array:
        rows = self._encoding.rows([entry.params for entry in entries])
        return rows.reshape(len(entries), len(self._encoding.groups))

    def _scale(self, completed: Sequence[Past]) -> _Scale:
        """By the hypervolume's box: that of the anchors, or of all results where no anchor is among them."""
        names = [objective.metric for objective in self._space.objectives]
        ends = [entry for entry in completed if entry.anchor] or completed
        reference = self._judgement.reference([dict(zip(names, entry.values or (), strict=True)) for entry in ends])
        low = np.array(self._judgement.point(reference)) * self._signs
        high = np.array(self._judgement.point(self._judgement.ideal(reference))) * self._signs
        return _Scale(signs=self._signs, bounded=self._bounded, low=low, width=high - low)

    def _chance(self, completed: Sequence[Past], wanted: Array) -> Array:
        """The probability that every constraint holds at each of these points."""
        chance = np.ones(len(wanted))
        rows = self._rows(completed)
        for name in sorted({name for entry in completed for name in entry.violations or {}}):
            missed = np.array([(entry.violations or {}).get(name, 0.0) for entry in completed])
            mean, spread = Surrogate(rows, missed, self._encoding.groups).predict(wanted)
            chance *= norm.cdf(-mean / spread)
        return chance

    def _chance_to_end(self, past: Sequence[Past], wanted: Array) -> Array:
        """The probability that a trial does not fail at each of these points, by which ones have."""
        ended = [entry for entry in past if entry.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)]
        failed = np.array([entry.state is TrialState.FAIL for entry in ended])
        if not failed.any():
            return np.ones(len(wanted))
        mean, spread = Surrogate(self._rows(ended), np.where(failed, 1.0, -1.0), self._encoding.groups).predict(wanted)
        found: Array = norm.cdf(-mean / spread)
        return found

    def _pool(self, feasible: Sequence[Past], rng: np.random.Generator) -> list[Params]:
        """Half of it anywhere, half near the front."""
        directions = [objective.direction for objective in self._space.objectives]
        keep = nondominated([entry.values or () for entry in feasible], directions)
        front = [entry.params for entry, kept in zip(feasible, keep, strict=True) if kept]
        pool = [self._anywhere(rng) for _ in range(POOL // 2 if front else POOL)]
        return pool + [self._near(front[index % len(front)], rng) for index in range(POOL - len(pool))]

    def _anywhere(self, rng: np.random.Generator) -> Params:
        return walk(self._space, self._data, lambda _, domain: _drawn(domain, rng))

    def _near(self, base: Mapping[str, object], rng: np.random.Generator) -> Params:
        def choose(name: str, domain: Domain) -> object:
            value = base.get(key_of(name))
            if isinstance(domain, Choice):
                return value if contains(domain, value) and rng.random() < _KEEP else _drawn(domain, rng)
            if not isinstance(value, int | float) or not domain.low <= value <= domain.high:
                return _drawn(domain, rng)
            return scaled(domain, float(np.clip(_unit(domain, value) + rng.normal(0, _STEP), 0.0, 1.0)))

        return walk(self._space, self._data, choose)


def _drawn(domain: Domain, rng: np.random.Generator) -> object:
    if isinstance(domain, Choice):
        return domain.values[int(rng.integers(len(domain.values)))]
    return scaled(domain, float(rng.random()))


def _unit(domain: Range, value: float) -> float:
    if domain.log:
        return float(np.log(value / domain.low) / np.log(domain.high / domain.low))
    return (value - domain.low) / (domain.high - domain.low)


def _some(points: Sequence[Params], rng: np.random.Generator) -> list[Params]:
    if len(points) <= POOL:
        return list(points)
    return [points[int(index)] for index in rng.choice(len(points), POOL, replace=False)]


def _ends_at_one(objective: Objective) -> bool:
    metric = METRICS[objective.metric]
    return metric.unit == "fraction" or metric.best == 1.0
