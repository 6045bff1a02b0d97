"""Methods' best confirmed configurations against each other, over the fresh seeds that both have.

Same seed, same order of batches, so differences are paired. What is compared is *test*; the configuration was chosen by
val. Plain values in, plain values out.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr

from reports.chapters.fresh_seeds import LEAST_SEEDS, Fresh, fresh_runs
from reports.chapters.rarefaction import Box, box
from reports.confirmed import standard_error_of_mean
from reports.fronts import Point, Study
from repsim.records import METRICS, Objective

LEVEL = 0.05
_NO_SPREAD = 1e-12


@dataclass(frozen=True, kw_only=True)
class Paired:
    """``first`` minus ``second`` over ``n`` common seeds; ``p`` of the paired t-test, ``adjusted`` by Holm.

    ``p`` is None where the differences have no spread, which a t-test cannot judge; ``adjusted`` as long as it is not
    known how many tests there are.
    """

    first: str
    second: str
    metric: str
    n: int
    difference: float
    error: float
    p: float | None
    adjusted: float | None = None

    @property
    def found(self) -> bool:
        """Whether there is a difference that is more than luck."""
        return self.adjusted is not None and self.adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The configuration that stands for its method, best of ``of`` confirmed ones; ``runs`` are its fresh seeds."""

    of: int
    runs: Fresh

    @property
    def point(self) -> Point:
        """Its means."""
        return self.runs.point


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of tests, in the order given (Holm, Scand. J. Statist. 6, 1979).

    The i-th smallest of m is multiplied by m - i + 1, made no smaller than the one before, and cut to 1.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def corrected(families: Sequence[Sequence[Paired]]) -> list[list[Paired]]:
    """The same tests in the same lists, with Holm's correction over those of all lists that have a p-value."""
    judged = [test.p for family in families for test in family if test.p is not None]
    adjusted = iter(holm(judged))
    return [
        [replace(test, adjusted=None if test.p is None else next(adjusted)) for test in family] for family in families
    ]


def reported(objective: Objective) -> str:
    """The metric on test images, where it is one of a split."""
    name = objective.metric.replace("val_", "test_", 1)
    return name if name in METRICS else objective.metric


def champions(study: Study, backbone: str) -> dict[str, Champion]:
    """Of each method the confirmed configuration that stands for it, best first objective first.

    The one whose val means alone dominate the largest share of the reference box; without a box, or where none lies
    in it, the one with the best first objective.
    """
    measured, first = box(study), study.objectives[0]
    down = -1.0 if first.direction == "maximize" else 1.0
    methods: dict[str, list[Fresh]] = {}
    for fresh in fresh_runs(study, [reported(objective) for objective in study.objectives], backbone):
        methods.setdefault(fresh.point.method, []).append(fresh)
    found = {
        method: Champion(of=len(mine), runs=max(mine, key=lambda fresh: _worth(fresh.point, measured, -down)))
        for method, mine in methods.items()
    }
    return dict(sorted(found.items(), key=lambda item: down * item[1].point.values[0]))


def _worth(point: Point, measured: Box | None, up: float) -> tuple[float, float]:
    return 0.0 if measured is None else measured.share([point.values]), up * point.values[0]


def paired(study: Study, found: Mapping[str, Champion]) -> list[Paired]:
    """Every two methods' champions over their common fresh seeds, objective by objective on test; not yet corrected.

    Pairs with fewer than ``LEAST_SEEDS`` common seeds are left out.
    """
    tests = []
    for first, second in itertools.combinations(sorted(found), 2):
        one, other = found[first].runs.values, found[second].runs.values
        common = sorted(set(one) & set(other))
        if len(common) >= LEAST_SEEDS:
            for place, objective in enumerate(study.objectives):
                gaps = [one[seed][place] - other[seed][place] for seed in common]
                tests.append(_tested(first, second, reported(objective), gaps))
    return tests


def _tested(first: str, second: str, metric: str, gaps: Sequence[float]) -> Paired:
    """The paired t-test, two-sided, from the t distribution alone: scipy.stats takes longer to import."""
    error, mean = standard_error_of_mean(gaps) or 0.0, statistics.fmean(gaps)
    p = None if error <= _NO_SPREAD else float(2.0 * stdtr(len(gaps) - 1, -abs(mean) / error))
    return Paired(first=first, second=second, metric=metric, n=len(gaps), difference=mean, error=error, p=p)
