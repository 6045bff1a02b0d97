"""What fresh seeds attain again and again: attainment surfaces of a method's confirmed configurations.

The empirical attainment function of n fronts gives, for each point of the plane, the share of fronts that reach it
(Grunert da Fonseca, Fonseca & Hall, EMO 2001). A q-surface is the boundary of what at least q · n of them reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.fronts import Study
from reports.load import records
from reports.values import finite
from repsim.records import Direction, Stage, Status

QUANTILES = (0.25, 0.5, 0.75)
FEWEST = 3
"""Fresh seeds below which three surfaces would say no more than the points do."""

Place = tuple[float, float]
"""A point of the plane as pictures have it: x, y."""


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """The surfaces of one method on one backbone, over ``n`` seeds and ``configurations`` that all have them.

    ``surfaces`` has one staircase per quantile, by rising x; empty where fewer than ``FEWEST`` seeds are common.
    """

    n: int
    configurations: int
    surfaces: tuple[tuple[Place, ...], ...]


def attainment(study: Study, method: str, backbone: str) -> Attainment:
    """What a method's confirmed configurations attain with each of the seeds that all of them have."""
    if study.axes.x is None:
        return Attainment(n=0, configurations=0, surfaces=())
    x, y = study.axes.x, study.axes.y
    found: dict[str, dict[int, Place]] = {}
    for row in records(study.trials):
        ours = row["stage"] == Stage.CONFIRM.value and row["status"] == Status.COMPLETED.value
        at = (finite(row[x.metric]), finite(row[y.metric]))
        seed = finite(row["seed"])
        if ours and (row["method"], row["backbone"]) == (method, backbone) and None not in (*at, seed):
            found.setdefault(str(row["config_id"]), {})[round(seed or 0)] = (at[0] or 0.0, at[1] or 0.0)
    several = [mine for mine in found.values() if len(mine) >= FEWEST]
    seeds = sorted(set.intersection(*(set(mine) for mine in several))) if several else []
    if len(seeds) < FEWEST:
        return Attainment(n=len(seeds), configurations=len(several), surfaces=())
    fronts = [[mine[seed] for mine in several] for seed in seeds]
    ways = (x.direction, y.direction)
    surfaces = tuple(surface(fronts, share, ways) for share in QUANTILES)
    return Attainment(n=len(seeds), configurations=len(several), surfaces=surfaces)


def surface(fronts: Sequence[Sequence[Place]], share: float, ways: tuple[Direction, Direction]) -> tuple[Place, ...]:
    """The staircase that bounds what at least ``share`` of the fronts attain, by rising x; exact.

    ``ways`` are the directions of x and y. Empty where fewer fronts than that have a point at all.
    """
    turn = tuple(-1.0 if way == "maximize" else 1.0 for way in ways)
    low = [[(turn[0] * x, turn[1] * y) for x, y in front] for front in fronts]
    wanted = max(1, math.ceil(share * len(fronts) - 1e-9))
    corners: list[Place] = []
    for at in sorted({x for front in low for x, _ in front}):
        reached = sorted(min((y for x, y in front if x <= at), default=math.inf) for front in low)
        best = reached[wanted - 1]
        if best < (corners[-1][1] if corners else math.inf):
            corners.append((at, best))
    stairs: list[Place] = []
    for index, (x, y) in enumerate(corners):
        if index:
            stairs.append((x, corners[index - 1][1]))
        stairs.append((x, y))
    turned = [(turn[0] * x, turn[1] * y) for x, y in stairs]
    return tuple(turned if turn[0] > 0 else reversed(turned))


def attained(place: Place, front: Sequence[Place], ways: tuple[Direction, Direction]) -> bool:
    """Whether some point of ``front`` is nowhere worse than ``place``."""

    def reaches(value: float, goal: float, way: Direction) -> bool:
        return value >= goal if way == "maximize" else value <= goal

    return any(reaches(x, place[0], ways[0]) and reaches(y, place[1], ways[1]) for x, y in front)


def by_backbone(study: Study) -> Mapping[str, tuple[str, ...]]:
    """The methods with at least one point, by backbone."""
    found: dict[str, dict[str, None]] = {}
    for point in study.points:
        if point.derived_from is None:
            found.setdefault(point.backbone, {})[point.method] = None
    return {backbone: tuple(methods) for backbone, methods in sorted(found.items())}
