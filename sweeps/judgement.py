"""What finished trials are worth: feasibility, fronts, and the hypervolume's box.

Pure functions of objectives, constraints and values. A candidate is an id with all its metrics; whoever calls decides
which points are candidates (finished trials, and points derived from them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from repsim.front import dominates, hypervolume, nondominated
from repsim.records import METRICS, Direction, Objective, Status, TrialResult
from sweeps.derived import derived_values, trial_of
from sweeps.space import Constraint

MARGIN = 0.05

Values = Mapping[str, float]
Candidate = tuple[str, Values]
"""A point's id and its metrics by name."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended. ``values`` are its metrics when it completed; ``reason`` says why it did not.

    ``n_val`` is the number of validation images behind them, 0 when nobody said. ``derived`` are the values of its
    derived points by their ids: candidates for the front, never told to the sampler.
    """

    status: Status
    values: Values | None = None
    reason: str = ""
    n_val: int = 0
    derived: Mapping[str, Values] = field(default_factory=dict)

    @classmethod
    def completed(cls, trial_id: str, result: TrialResult) -> Self:
        """With what the trainer answered."""
        n_val = result.facts.get("n_val")
        return cls(
            status=Status.COMPLETED,
            values=result.values,
            n_val=n_val if isinstance(n_val, int) else 0,
            derived=derived_values(trial_id, result),
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Judges by these objectives, under these constraints."""

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]

    @property
    def directions(self) -> list[Direction]:
        """The objectives' own, in order."""
        return [objective.direction for objective in self.objectives]

    @property
    def needed(self) -> list[str]:
        """Metrics without which a result is no use: objectives, then constrained ones, each once."""
        metrics = [objective.metric for objective in self.objectives]
        return list(dict.fromkeys([*metrics, *(constraint.metric for constraint in self.constraints)]))

    def judge(self, outcome: Outcome) -> Outcome:
        """A completed trial that lacks a needed metric, or holds a value that is not finite, has failed."""
        if outcome.status is not Status.COMPLETED:
            return outcome
        values = outcome.values or {}
        problems = [f"{metric} is missing" for metric in self.needed if values.get(metric) is None]
        problems += [
            f"{metric} is {value}" for metric, value in values.items() if value is not None and not _finite(value)
        ]
        if not problems:
            return outcome
        return replace(outcome, status=Status.FAILED, reason="no usable result: " + ", ".join(problems))

    def point(self, values: Values) -> tuple[float, ...]:
        """The objectives' values, in order."""
        return tuple(float(values[objective.metric]) for objective in self.objectives)

    def measured(self, values: Values) -> bool:
        """Whether every objective has a finite value."""
        return all(_finite(values.get(objective.metric)) for objective in self.objectives)

    def violations(self, values: Values) -> dict[str, float]:
        """How far each constraint, by name, is missed; <= 0 holds. One that was not measured counts as just held."""
        return {
            f"{constraint.metric} {constraint.sense} {constraint.bound:g}": constraint.violation(
                values.get(constraint.metric, constraint.bound)
            )
            for constraint in self.constraints
        }

    def feasible(self, values: Values) -> bool:
        """Whether every constraint holds; a constrained metric that is missing or not finite does not."""
        return all(
            _finite(values.get(constraint.metric)) and constraint.violation(values[constraint.metric]) <= 0
            for constraint in self.constraints
        )

    def front(self, candidates: Sequence[Candidate]) -> list[str]:
        """Ids of the feasible candidates that no other one dominates, in their order."""
        points = self._feasible_points(candidates)
        keep = nondominated(list(points.values()), self.directions)
        return [name for name, kept in zip(points, keep, strict=True) if kept]

    def reference(self, anchors: Sequence[Values]) -> dict[str, float]:
        """The hypervolume's reference point by metric, from both anchors' values.

        Maximised metrics: the worse anchor minus 5 % of the anchors' range; minimised: 1.05 x the worse anchor. Where
        that is no margin at all (anchors equal, or at zero), the margin is 5 % of the larger of |value| and 1.
        """
        return {
            objective.metric: _reference([values[objective.metric] for values in anchors], objective.direction)
            for objective in self.objectives
        }

    def ideal(self, reference: Values) -> dict[str, float]:
        """The other corner of the hypervolume's box.

        1 for maximised metrics that are fractions or similarities, 0 for minimised ones. Where that does not better the
        reference (unbounded metrics such as images_per_second): the reference, bettered by the larger of |value| and 1.
        """
        return {
            objective.metric: _ideal(objective.metric, reference[objective.metric], objective.direction)
            for objective in self.objectives
        }

    def hypervolume(self, candidates: Sequence[Candidate], reference: Values) -> float:
        """Share of the box from reference to ideal that the feasible candidates dominate, in [0, 1]."""
        return self._volume(list(self._feasible_points(candidates).values()), reference)

    def hypervolumes(
        self, candidates: Sequence[Candidate], reference: Values, anchors: set[str], ended: Sequence[str]
    ) -> list[float | None]:
        """The hypervolume after each of ``ended`` (ids, in order); None until the last of ``anchors`` is among them.

        A trial's derived points come with it.
        """
        waiting = set(anchors)
        points: dict[str, list[tuple[float, ...]]] = {}
        for name, point in self._feasible_points(candidates).items():
            points.setdefault(trial_of(name), []).append(point)
        front: list[tuple[float, ...]] = []  # only it has a volume, and only a new member changes that
        volume = 0.0
        found: list[float | None] = []
        for name in ended:
            waiting.discard(name)
            for point in points.get(name, ()):
                if not any(dominates(other, point, self.directions) for other in front):
                    front = [other for other in front if not dominates(point, other, self.directions)] + [point]
                    volume = self._volume(front, reference)
            found.append(None if waiting else volume)
        return found

    def _volume(self, points: list[tuple[float, ...]], reference: Values) -> float:
        ideal = self.ideal(reference)
        return hypervolume(points, self.point(reference), self.point(ideal), self.directions)

    def _feasible_points(self, candidates: Sequence[Candidate]) -> dict[str, tuple[float, ...]]:
        return {name: self.point(values) for name, values in candidates if self.feasible(values)}


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reference(values: Sequence[float], direction: Direction) -> float:
    low, high = min(values), max(values)
    margin = MARGIN * (high - low if direction == "maximize" else high)
    if margin <= 0:
        margin = MARGIN * max(abs(low), abs(high), 1.0)
    return low - margin if direction == "maximize" else high + margin


def _ideal(metric: str, reference: float, direction: Direction) -> float:
    if direction == "minimize":
        return 0.0 if reference > 0 else reference - max(abs(reference), 1.0)
    best = METRICS[metric].best
    if best is not None and reference < best:
        return best
    return reference + max(abs(reference), 1.0)
