"""Methods against each other, as far as that is fair. Plain values in, plain values out.

Two ways. Where methods have confirmed configurations, the best one of each is compared over the fresh seeds that both
have: same seed, same order of batches, so differences are paired. What is compared is *test*; the configuration was
chosen by val. Where they have not, the search's runs are all there is: the more a method was tried, the better its best
run, so every method is cut down to as many trials as the least tried one has, and that is exploratory.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from reports.confirmed import standard_error_of_mean
from reports.fronts import Point, Study
from reports.load import Reference, records
from reports.values import finite
from repsim.front import hypervolume
from repsim.records import METRICS, Objective, Stage, Status

FEWEST_TRIALS = 3
"""Methods tried less often are not compared: a best of one or two is luck."""
ENUMERATED, DRAWS = 2_000, 1_000
"""So many subsets are all taken; of more, that many are drawn, with one seed."""
LEVEL = 0.05
_SEED = 20010


@dataclass(frozen=True, kw_only=True)
class Rarefied:
    """The hypervolume that ``m`` of a method's ``n`` trials have: mean and standard deviation over subsets."""

    method: str
    n: int
    m: int
    mean: float
    spread: float
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Paired:
    """``first`` minus ``second`` over ``n`` common seeds; ``p`` of the paired t-test, ``adjusted`` by Holm.

    ``p`` is None where the differences have no spread, which a t-test cannot judge.
    """

    first: str
    second: str
    metric: str
    n: int
    difference: float
    error: float
    p: float | None
    adjusted: float | None


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


def rarefied(study: Study, backbone: str) -> list[Rarefied]:
    """Each method at the smallest number of trials that any method with ``FEWEST_TRIALS`` has; best first.

    Counted are search trials that have ended, stopped and failed ones too: they were tried. The anchors count as trials
    of their methods. Empty without a reference point, or with fewer than two such methods.
    """
    tried = _tried(study, backbone)
    enough = {method: values for method, values in tried.items() if len(values) >= FEWEST_TRIALS}
    if study.reference is None or len(enough) < 2:
        return []
    m = min(len(values) for values in enough.values())
    found = []
    for method, values in enough.items():
        volumes, exact = _volumes(values, m, study.objectives, study.reference)
        spread = statistics.pstdev(volumes)
        mean = statistics.fmean(volumes)
        found.append(Rarefied(method=method, n=len(values), m=m, mean=mean, spread=spread, exact=exact))
    return sorted(found, key=lambda one: (-one.mean, one.method))


def _tried(study: Study, backbone: str) -> dict[str, list[tuple[float, ...] | None]]:
    """The values of every ended search trial by method; None where it cannot be on the front."""
    values = {point.run_id: point.values for point in study.points if point.candidate and point.derived_from is None}
    found: dict[str, list[tuple[float, ...] | None]] = {}
    for row in records(study.trials):
        ended = row["status"] in {status.value for status in Status if status.terminal}
        if row["stage"] == Stage.SEARCH.value and row["backbone"] == backbone and ended:
            found.setdefault(str(row["method"]), []).append(values.get(str(row["mlflow_run_id"])))
    return found


def _volumes(
    values: Sequence[tuple[float, ...] | None], m: int, objectives: Sequence[Objective], box: Reference
) -> tuple[list[float], bool]:
    """Hypervolumes of subsets of size ``m``, and whether these are all subsets."""
    names = [objective.metric for objective in objectives]
    worst, ideal = ([corner[name] for name in names] for corner in (box.worst, box.ideal))
    directions = [objective.direction for objective in objectives]
    exact = math.comb(len(values), m) <= ENUMERATED
    if exact:
        chosen = [list(some) for some in itertools.combinations(range(len(values)), m)]
    else:
        rng = np.random.default_rng(_SEED)
        chosen = [rng.choice(len(values), m, replace=False).tolist() for _ in range(DRAWS)]
    subsets = ([values[index] for index in some] for some in chosen)
    return [hypervolume([v for v in some if v is not None], worst, ideal, directions) for some in subsets], exact


def best_confirmed(study: Study, backbone: str) -> dict[str, Point]:
    """Of each method the confirmed configuration that stands for it.

    The one whose val means alone dominate the largest share of the reference box; without a box, or where none lies
    in it, the one with the best first objective.
    """
    found: dict[str, Point] = {}
    for point in study.means:
        if point.backbone == backbone and point.eligible and point.repeats is not None:
            rival = found.get(point.method)
            if rival is None or _worth(point, study) > _worth(rival, study):
                found[point.method] = point
    return found


def _worth(point: Point, study: Study) -> tuple[float, float]:
    first = point.values[0] if study.objectives[0].direction == "maximize" else -point.values[0]
    if study.reference is None:
        return 0.0, first
    names = [objective.metric for objective in study.objectives]
    worst, ideal = ([corner[name] for name in names] for corner in (study.reference.worst, study.reference.ideal))
    return hypervolume([point.values], worst, ideal, [objective.direction for objective in study.objectives]), first


def paired(study: Study, backbone: str) -> list[Paired]:
    """Every two methods' best confirmed configurations over their common fresh seeds, objective by objective on test.

    Holm's correction is over all tests returned. Pairs with fewer than three common seeds are left out.
    """
    best = best_confirmed(study, backbone)
    names = [_reported(objective.metric) for objective in study.objectives]
    by_seed = {method: _by_seed(study, point, names) for method, point in best.items()}
    found = []
    for first, second in itertools.combinations(sorted(best), 2):
        common = sorted(set(by_seed[first]) & set(by_seed[second]))
        if len(common) >= FEWEST_TRIALS:
            for place, name in enumerate(names):
                gaps = [by_seed[first][seed][place] - by_seed[second][seed][place] for seed in common]
                found.append(_tested(first, second, name, gaps))
    return _adjusted(found)


def _tested(first: str, second: str, metric: str, gaps: Sequence[float]) -> Paired:
    error = standard_error_of_mean(gaps) or 0.0
    mean = statistics.fmean(gaps)
    p = None if error <= 1e-12 else float(stats.ttest_1samp(gaps, 0.0).pvalue)
    return Paired(
        first=first, second=second, metric=metric, n=len(gaps), difference=mean, error=error, p=p, adjusted=None
    )


def _adjusted(tests: Sequence[Paired]) -> list[Paired]:
    judged = [index for index, test in enumerate(tests) if test.p is not None]
    corrected = dict(zip(judged, holm([tests[index].p or 0.0 for index in judged]), strict=True))
    return [replace(test, adjusted=corrected.get(index)) for index, test in enumerate(tests)]


def _reported(metric: str) -> str:
    """The metric on test images, where it is one of a split."""
    name = metric.replace("val_", "test_", 1)
    return name if name in METRICS else metric


def _by_seed(study: Study, point: Point, names: Sequence[str]) -> dict[int, tuple[float, ...]]:
    """A configuration's values by fresh seed; seeds that lack one are left out."""
    rows = records(study.trials)
    config = next(row["config_id"] for row in rows if row["mlflow_run_id"] == point.run_id)
    found = {}
    for row in rows:
        if (
            row["stage"] == Stage.CONFIRM.value
            and row["status"] == Status.COMPLETED.value
            and row["config_id"] == config
        ):
            values = [finite(row[name]) for name in names]
            present = tuple(value for value in values if value is not None)
            seed = finite(row["seed"])
            if len(present) == len(values) and seed is not None:
                found[round(seed)] = present
    return found


def means_of(study: Study, backbone: str) -> Mapping[str, Point]:
    """The configurations that stand for their methods, by method, in the order of the first objective."""
    best = best_confirmed(study, backbone)
    down = -1.0 if study.objectives[0].direction == "maximize" else 1.0
    return dict(sorted(best.items(), key=lambda item: down * item[1].values[0]))
