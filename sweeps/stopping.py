"""Which trials need not be trained to the end. Rules by name, without an engine; nothing here knows what a trial is.

A trial is looked at after a few of its epochs (the rungs), and always beside what other trials had after as many: one
that has hardly been trained has kept nearly all its similarity, and nobody dominates it. Whatever the rule,

* a finished linear probe takes part at every rung, for it keeps everything and costs next to nothing;
* a trial that neither another trial nor a probe dominates at its rung goes on, so similarity alone stops nobody;
* the verdict depends on the values seen so far and on nothing else, so telling them again restores it.

``docs/search.md`` has the formulas in words, and why the second rule is the default.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from repsim.records import EPOCH_METRICS, METRICS, SIMILARITIES, Objective

Point = tuple[float, ...]
"""Objectives in order, turned so that more is better."""
Curve = Mapping[int, Point]
"""Values by epoch: the rungs and the last."""

_FLOOR = 0.05
"""What the farthest trial weighs beside one that is alike, so that no prediction rests on two or three alone."""


class Stopping(ABC):
    """What the rules share: the curves seen so far, the probes, the rungs."""

    def __init__(
        self, objectives: Sequence[Objective], epochs: int, rungs: Sequence[int] | None = None, reduction: float = 2.0
    ) -> None:
        """``epochs`` is what a full trial trains; ``rungs`` (1 to epochs - 1) default to ``default_rungs``.

        Raises ValueError for an objective that is not measured every epoch, for similarities alone, for a reduction of
        1 or less, and for rungs out of range.
        """
        unknown = [objective.metric for objective in objectives if objective.metric not in EPOCH_METRICS]
        if unknown:
            raise ValueError(f"not measured every epoch, so nothing can be stopped by it: {', '.join(unknown)}")
        if all(objective.metric in SIMILARITIES for objective in objectives):
            raise ValueError(
                "similarity alone is no reason to stop a trial; an objective such as val_accuracy is needed"
            )
        if not reduction > 1:
            raise ValueError(f"reduction must be greater than 1, not {reduction}")
        self.rungs = default_rungs(epochs, reduction) if rungs is None else tuple(sorted(set(rungs)))
        if any(not 1 <= rung < epochs for rung in self.rungs):
            raise ValueError(f"rungs must lie between 1 and {epochs - 1}, not {list(self.rungs)}")
        self._objectives = tuple(objectives)
        self._signs = tuple(1.0 if objective.direction == "maximize" else -1.0 for objective in objectives)
        self._ends = np.array([_end(objective) for objective in objectives])
        self._similar = [i for i, one in enumerate(objectives) if one.metric in SIMILARITIES]
        self._merits = [i for i, one in enumerate(objectives) if one.metric not in SIMILARITIES]
        self._epochs = epochs
        self._reduction = reduction
        self._curves: dict[str, dict[int, Point]] = {}
        self._anchors: dict[str, Point] = {}
        self._shorter: dict[str, Point] = {}
        self._reasons: dict[str, str] = {}

    def report(self, trial_id: str, epoch: int, values: Mapping[str, float], of: int | None = None) -> bool:
        """Take in an epoch; whether the trial goes on.

        ``of`` is how many epochs the trial trains, all of them by default. One that trains another number is never
        stopped (its learning rate falls at another pace, so its epochs are not comparable); its result counts. Nor is
        one stopped at an epoch that is no rung, or in which an objective is missing or not finite.
        """
        self.observe(trial_id, epoch, values, of)
        point = self._curves.get(trial_id, {}).get(epoch)
        if point is None or epoch not in self.rungs:
            return True
        peers = [curve[epoch] for name, curve in self._curves.items() if name != trial_id and epoch in curve]
        if not any(_dominates(other, point) for other in (*peers, *self._anchors.values())):
            return True
        reason = self._verdict(trial_id, epoch, point, peers)
        if not reason:
            return True
        self._reasons[trial_id] = f"stopped at epoch {epoch} of {self._epochs}: {reason}"
        return False

    def observe(self, trial_id: str, epoch: int, values: Mapping[str, float], of: int | None = None) -> None:
        """Take in an epoch without a verdict. An epoch told twice counts as told last."""
        point = self._point(values)
        if point is None:
            return
        if of is not None and of != self._epochs:
            if epoch == of:
                self._shorter[trial_id] = point
            return
        if epoch in self.rungs or epoch == self._epochs:
            self._curves.setdefault(trial_id, {})[epoch] = point

    def anchor(self, trial_id: str, values: Mapping[str, float]) -> None:
        """Take in a finished linear probe, which takes part at every rung."""
        point = self._point(values)
        if point is not None:
            self._anchors[trial_id] = point

    def forget(self, trial_id: str) -> None:
        """Leave a trial out from now on: it failed, or it breaks a constraint and so cannot stand in for another."""
        for known in (self._curves, self._anchors, self._shorter):
            known.pop(trial_id, None)

    def reason(self, trial_id: str) -> str:
        """Why the trial was stopped, in words; empty for one that was not."""
        return self._reasons.get(trial_id, "")

    def expected(self, trial_id: str) -> dict[str, float] | None:
        """What the trial would have at its last epoch, where the rule has an opinion."""
        return None

    @abstractmethod
    def _verdict(self, trial_id: str, epoch: int, point: Point, peers: Sequence[Point]) -> str:
        """Why the trial should stop, empty when it should not. ``peers`` are the others at the same epoch."""

    def _named(self, point: Point) -> dict[str, float]:
        return {o.metric: sign * value for o, sign, value in zip(self._objectives, self._signs, point, strict=True)}

    def _finished(self) -> list[dict[int, Point]]:
        """Curves of the trials that trained all epochs, by id: sums then do not depend on the order of arrival."""
        return [curve for _, curve in sorted(self._curves.items()) if self._epochs in curve]

    def _point(self, values: Mapping[str, float]) -> Point | None:
        found = [values.get(objective.metric) for objective in self._objectives]
        known = [value for value in found if value is not None and math.isfinite(value)]
        if len(known) < len(found):
            return None
        return tuple(sign * value for sign, value in zip(self._signs, known, strict=True))


class StratifiedStopping(Stopping):
    """Successive halving among trials that kept as much: the best ``1 / reduction`` of them go on.

    The stratum of a trial is the ``stratum`` peers nearest to it among those that kept at least as much. It is stopped
    when a probe in its stratum is better in everything but similarity, or when the stratum has at least ``few`` members
    and ``(members + 1) / reduction`` of them or more are. Peers are those seen so far, as in ASHA (Li et al. 2020,
    "A System for Massively Parallel Hyperparameter Tuning", Algorithm 2). A probe is finished and the trial is not, so
    the probe is set back by what finished trials gained after the rung on average; with fewer than ``few`` of those it
    stops nobody.
    """

    few = 4
    stratum = 8

    def _verdict(self, trial_id: str, epoch: int, point: Point, peers: Sequence[Point]) -> str:
        probes = self._set_back(epoch)
        near = sorted(
            (other for other in (*peers, *probes) if all(other[i] >= point[i] for i in self._similar)),
            key=lambda other: sum(other[i] - point[i] for i in self._similar),
        )[: self.stratum]
        if any(self._better(probe, point) for probe in probes if probe in near):
            return "worse than a linear probe that kept as much, even after what trials gain in the remaining epochs"
        better = sum(self._better(other, point) for other in near)
        if len(near) < self.few or better < (len(near) + 1) / self._reduction:
            return ""
        return f"{better} of the {len(near)} nearest trials that kept as much were better"

    def _set_back(self, epoch: int) -> list[Point]:
        ended = [curve for curve in self._finished() if epoch in curve]
        if len(ended) < self.few:
            return []
        gained = [
            0.0 if i in self._similar else sum(one[self._epochs][i] - one[epoch][i] for one in ended) / len(ended)
            for i in range(len(self._objectives))
        ]
        return [tuple(x - gain for x, gain in zip(probe, gained, strict=True)) for probe in self._anchors.values()]

    def _better(self, a: Point, b: Point) -> bool:
        return _dominates(tuple(a[i] for i in self._merits), tuple(b[i] for i in self._merits))


class ExtrapolatingStopping(Stopping):
    """Stops a trial when even an optimistic guess at its result is dominated by a result that is there.

    The guess: over the trials that trained all epochs, (result - value at the rung) is regressed on the values at the
    rung and their change since the rung before. Ridge, standardised, penalty 1; trials count by how near their
    predictors are, with a Gaussian of ``width`` standard deviations that ends at a floor of 0.05. Optimistic: the
    prediction, bettered in every objective by ``spread`` standard deviations of a new observation, and no better than
    anything can be (a similarity of 1). With fewer than ``few`` such trials nothing is stopped.
    """

    few = 5
    spread = 1.5
    width = 1.5

    def _verdict(self, trial_id: str, epoch: int, point: Point, peers: Sequence[Point]) -> str:
        guess = self._guess(self._curves[trial_id], epoch)
        if guess is None:
            return ""
        hoped: Point = tuple(np.minimum(guess[0] + self.spread * guess[1], self._ends).tolist())
        results = [curve[self._epochs] for curve in self._finished()]
        results += [*self._shorter.values(), *self._anchors.values()]
        beaten = sum(_dominates(result, hoped) for result in results)
        if beaten == 0:
            return ""
        said = ", ".join(f"{METRICS[name].label} {value:.3f}" for name, value in self._named(hoped).items())
        return f"with luck it would have ended at {said}; {beaten} of {len(results)} results dominate that"

    def expected(self, trial_id: str) -> dict[str, float] | None:
        """Its result, or the prediction from the last rung it reached; None without a rung or enough finished trials.

        ``spread`` is no part of it: it is the guess itself, not the optimistic one.
        """
        curve = self._curves.get(trial_id)
        if not curve:
            return None
        if self._epochs in curve:
            return self._named(curve[self._epochs])
        guess = self._guess(curve, max(curve))
        return None if guess is None else self._named(guess[0].tolist())

    def _guess(self, curve: Curve, epoch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Mean and standard deviation of the result of a trial, from this curve up to the rung ``epoch``."""
        rungs = [rung for rung in self.rungs if rung <= epoch][-2:]
        ended = [one for one in self._finished() if all(rung in one for rung in rungs)]
        if any(rung not in curve for rung in rungs) or len(ended) < self.few:
            return None
        own, seen = _predictors([curve], rungs)[0], _predictors(ended, rungs)
        drift = np.array([one[self._epochs] for one in ended]) - np.array([one[epoch] for one in ended])
        scale = np.maximum(seen.std(axis=0), 1e-9)
        distance = (((seen - own) / scale) ** 2).sum(axis=1)
        weights = np.exp(-distance / (2 * self.width**2)) + _FLOOR
        weights = (weights / weights.mean())[:, np.newaxis]
        n = float(weights.sum() ** 2 / (weights**2).sum())
        centre, usual = (weights * seen).mean(axis=0), (weights * drift).mean(axis=0)
        x, new = (seen - centre) / scale, (own - centre) / scale
        gram = x.T @ (weights * x)
        inverse = np.linalg.inv(gram + np.eye(len(own)))
        slope = inverse @ x.T @ (weights * (drift - usual))
        left = (weights * (drift - usual - x @ slope) ** 2).mean(axis=0)
        variance = left * n / max(1.0, n - 1 - float(np.trace(inverse @ gram)))
        unsure = 1 + 1 / n + float(new @ inverse @ new)
        return np.array(curve[epoch]) + usual + new @ slope, np.sqrt(variance * unsure)


RULES: Mapping[str, type[Stopping]] = {"strata": StratifiedStopping, "extrapolation": ExtrapolatingStopping}
ParetoStopping = ExtrapolatingStopping
"""What ``search.stopping: pareto`` means."""


def default_rungs(epochs: int, reduction: float = 2.0) -> tuple[int, ...]:
    """Powers of ``reduction`` from the first epoch on: 1, 2, 4 and 8 of 12."""
    found, rung = set(), 1.0
    while int(rung) < epochs:
        found.add(int(rung))
        rung *= reduction
    return tuple(sorted(found))


def _end(objective: Objective) -> float:
    """The best value there is, turned so that more is better (0 is that either way); infinite where there is none."""
    best = METRICS[objective.metric].best
    return math.inf if best is None else best


def _predictors(curves: Sequence[Curve], rungs: Sequence[int]) -> NDArray[np.float64]:
    """A row per curve: its values at the last of one or two rungs, and their change since the one before."""
    values = [np.array([curve[rung] for curve in curves]) for rung in rungs]
    return np.hstack([values[-1], *(values[-1] - before for before in values[:-1])])


def _dominates(a: Point, b: Point) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
