"""What fresh seeds attain again and again: attainment surfaces of a method's confirmed configurations.

The empirical attainment function of n fronts gives, for each point of the plane, the share of fronts that reach it
(Grunert da Fonseca, Fonseca & Hall, EMO 2001). A q-surface is the boundary of what at least q · n of them reach
(Fonseca & Fleming, PPSN 1996).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.chapters.fresh_seeds import LEAST_SEEDS, fresh_runs
from reports.fronts import Study
from repsim.records import Direction

QUANTILES = (0.25, 0.5, 0.75)

Place = tuple[float, float]
"""A point of the plane as pictures have it: x, y."""


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """The surfaces of one method on one backbone, over ``n`` seeds and the ``configurations`` that have all of them.

    ``left_out`` configurations are confirmed, but lack one of the seeds. ``surfaces`` has one staircase per quantile,
    by rising x; empty where fewer than ``LEAST_SEEDS`` seeds are common.
    """

    n: int = 0
    configurations: int = 0
    left_out: int = 0
    surfaces: tuple[tuple[Place, ...], ...] = ()


def attainments(study: Study, backbone: str) -> dict[str, Attainment]:
    """What each method's confirmed configurations on one backbone attain with the seeds that they share, by method.

    Empty unless there are two objectives: a surface in the plane says nothing about a third.
    """
    x, y = study.axes.x, study.axes.y
    if x is None or study.axes.colour is not None:
        return {}
    methods: dict[str, list[Mapping[int, Place]]] = {}
    for fresh in fresh_runs(study, [x.metric, y.metric], backbone):
        places = {seed: (at[0], at[1]) for seed, at in fresh.values.items()}
        methods.setdefault(fresh.point.method, []).append(places)
    return {method: _attainment(found, (x.direction, y.direction)) for method, found in methods.items()}


def _attainment(found: Sequence[Mapping[int, Place]], ways: tuple[Direction, Direction]) -> Attainment:
    seeds = shared_seeds([frozenset(mine) for mine in found])
    kept = [mine for mine in found if seeds <= set(mine)]
    left_out = len(found) - len(kept)
    if len(seeds) < LEAST_SEEDS:
        return Attainment(n=len(seeds), configurations=len(kept), left_out=left_out)
    fronts = [[mine[seed] for mine in kept] for seed in sorted(seeds)]
    surfaces = tuple(surface(fronts, share, ways) for share in QUANTILES)
    return Attainment(n=len(seeds), configurations=len(kept), left_out=left_out, surfaces=surfaces)


def shared_seeds(found: Sequence[frozenset[int]]) -> frozenset[int]:
    """The seeds that a rectangle of configurations and seeds without holes is made of.

    Looked at are the seeds common to all configurations, and to any two. Of those that are ``LEAST_SEEDS`` or more the
    one that most configurations have, and then the largest; without such a set, the seeds common to all.
    """
    if not found:
        return frozenset()
    everyone = frozenset.intersection(*found)
    sets = {everyone, *(one & other for one, other in itertools.product(found, repeat=2))}
    enough = [seeds for seeds in sets if len(seeds) >= LEAST_SEEDS]

    def worth(seeds: frozenset[int]) -> tuple[int, int, list[int]]:
        return sum(seeds <= mine for mine in found), len(seeds), sorted((-seed for seed in seeds), reverse=True)

    return max(enough, key=worth) if enough else everyone


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


def by_backbone(study: Study) -> Mapping[str, tuple[str, ...]]:
    """The methods with at least one point, by backbone."""
    found: dict[str, dict[str, None]] = {}
    for point in study.points:
        if point.derived_from is None:
            found.setdefault(point.backbone, {})[point.method] = None
    return {backbone: tuple(methods) for backbone, methods in sorted(found.items())}
