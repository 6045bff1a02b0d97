"""Methods at an equal number of trials: what a random part of a method's trials is worth.

The more a method was tried, the better its best trials, by luck alone. So every method is cut down to m trials, m being
the least that any of them has: the expected hypervolume of m trials drawn from its n without replacement. A place of
the box that k of the n trials dominate is dominated by the drawn ones with probability 1 - C(n - k, m) / C(n, m), the
hypergeometric chance that rarefaction in ecology rests on (Hurlbert, Ecology 52, 1971). Its integral over the box is
the expectation, without drawing anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.fronts import Study
from reports.load import records
from reports.values import finite
from repsim.front import hypervolume
from repsim.records import Direction, Stage, Status

FEWEST_TRIALS = 3
"""Methods tried less often are not compared: a best of one or two is luck."""
EXACT_POINTS, PLACES = 250, 20_000
"""With three objectives more points in the box than this are judged at so many random places of it, with one seed."""
_SEED = 20010

Values = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Box:
    """What hypervolume is measured in, in the order of the objectives."""

    worst: Values
    ideal: Values
    directions: tuple[Direction, ...]

    def share(self, points: Sequence[Values]) -> float:
        """The share of the box that the points dominate."""
        return hypervolume(points, self.worst, self.ideal, self.directions)


@dataclass(frozen=True, kw_only=True)
class Rarefied:
    """A method's ``n`` trials cut down to ``m``: expected hypervolume, ``whole`` that of all n.

    ``exact`` is False where the expectation is estimated (standard error at most 0.5 / sqrt(PLACES)).
    """

    method: str
    n: int
    m: int
    mean: float
    whole: float
    exact: bool


def box(study: Study) -> Box | None:
    """The box that the sweep recorded; None where it recorded none, or one that nothing can be measured in."""
    if study.reference is None or len(study.objectives) < 2:
        return None
    corners = []
    for corner in (study.reference.worst, study.reference.ideal):
        known = [finite(corner.get(objective.metric)) for objective in study.objectives]
        corners.append(tuple(value for value in known if value is not None))
    worst, ideal = corners
    if len(worst) < len(study.objectives) or len(ideal) < len(study.objectives):
        return None
    if not all(o.better(best, than=least) for o, best, least in zip(study.objectives, ideal, worst, strict=True)):
        return None
    return Box(worst=worst, ideal=ideal, directions=tuple(objective.direction for objective in study.objectives))


def rarefied(study: Study, backbone: str) -> list[Rarefied]:
    """Each method at the smallest number of trials that any method with ``FEWEST_TRIALS`` has; best first.

    Counted are search trials that have ended, stopped and failed ones too: they were tried. The anchors count as trials
    of their methods, derived points do not. Empty without a box, or with fewer than two such methods.
    """
    measured = box(study)
    enough = {method: values for method, values in tried(study, backbone).items() if len(values) >= FEWEST_TRIALS}
    if measured is None or len(enough) < 2:
        return []
    m = min(len(values) for values in enough.values())
    found = []
    for method, values in enough.items():
        points, n = [value for value in values if value is not None], len(values)
        mean, exact = expected(points, n, m, measured)
        found.append(
            Rarefied(method=method, n=n, m=m, mean=mean, whole=expected(points, n, n, measured)[0], exact=exact)
        )
    return sorted(found, key=lambda one: (-one.mean, one.method))


def tried(study: Study, backbone: str) -> dict[str, list[Values | None]]:
    """The values of every search trial that has ended, by method; None where it cannot be on a front."""
    values = {point.run_id: point.values for point in study.points if point.candidate and point.derived_from is None}
    trials = study.trials
    ended = trials["status"].isin([status.value for status in Status if status.terminal])
    mine = ended & trials["stage"].eq(Stage.SEARCH.value) & trials["backbone"].eq(backbone)
    found: dict[str, list[Values | None]] = {}
    for row in records(trials.loc[mine, ["method", "mlflow_run_id"]]):
        found.setdefault(str(row["method"]), []).append(values.get(str(row["mlflow_run_id"])))
    return found


def expected(points: Sequence[Values], n: int, m: int, measured: Box) -> tuple[float, bool]:
    """Expected hypervolume of ``m`` of ``n`` trials, of which ``points`` are those with values; and whether exact.

    Raises ValueError unless 1 <= m <= n and there are at most n points.
    """
    if not 1 <= m <= n or len(points) > n:
        raise ValueError(f"{m} of {n} trials cannot be drawn where {len(points)} have values")
    worst, ideal = np.array(measured.worst), np.array(measured.ideal)
    scaled = (np.array(points, dtype=float).reshape(len(points), len(worst)) - ideal) / (worst - ideal)
    inside = np.maximum(scaled[(scaled < 1.0).all(axis=1)], 0.0)
    dominating = np.arange(n)
    missed = np.concatenate([[1.0], np.cumprod(np.maximum(n - m - dominating, 0) / (n - dominating))])
    chance = 1.0 - missed
    if inside.shape[1] > 2 and len(inside) > EXACT_POINTS:
        return _at_random_places(inside, chance), False
    return _integral(inside[np.argsort(inside[:, 0])], chance), True


def _integral(points: Any, chance: Any) -> float:
    """Integral over the unit box of ``chance[number of points that dominate the place]``; points by rising first value.

    Slice by slice in the last coordinate, in which a slice's points stand below it.
    """
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        widths = np.diff(np.append(np.sort(points[:, 0], kind="stable"), 1.0))
        return float(widths @ chance[1 : len(points) + 1])
    last = points[:, -1]
    levels = np.unique(last)
    heights = np.diff(np.append(levels, 1.0))
    slices = (_integral(points[last <= level][:, :-1], chance) for level in levels)
    return float(sum(height * area for height, area in zip(heights, slices, strict=True)))


def _at_random_places(points: Any, chance: Any) -> float:
    places = np.random.default_rng(_SEED).random((PLACES, points.shape[1]))
    dominating = np.zeros(PLACES, dtype=int)
    for point in points:
        dominating += (point <= places).all(axis=1)
    return float(chance[dominating].mean())
