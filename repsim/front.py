"""Pareto fronts of small point sets, their hypervolume, and which of their points to recommend.

Standard library only: the live view, the report and the promotion of a model share it. Points are tuples of values, one
per objective, in the objectives' own directions; nothing is negated by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from repsim.records import Direction, Objective

_ACCURACIES = ("accuracy", "balanced_accuracy", "auc")


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better."""
    a_low, b_low = _minimised(a, directions), _minimised(b, directions)
    return all(x <= y for x, y in zip(a_low, b_low, strict=True)) and a_low != b_low


def nondominated(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[bool]:
    """For each point, whether no other point dominates it. Equal points are all kept.

    O(n log n) in two objectives, O(n log n + n x front) in more.
    """
    lowered = [_minimised(point, directions) for point in points]
    front = set(_front(lowered))
    return [point in front for point in lowered]


def hypervolume(
    points: Sequence[Sequence[float]],
    reference: Sequence[float],
    ideal: Sequence[float],
    directions: Sequence[Direction],
) -> float:
    """Share of the box between ``reference`` and ``ideal`` that the points dominate, in [0, 1].

    Points that do not better the reference in every objective count 0; values beyond the ideal are cut to it.
    Raises ValueError when the box is empty. Exact, by slicing; meant for up to a few hundred points in 2 or 3
    objectives.
    """
    low = _minimised(ideal, directions)
    high = _minimised(reference, directions)
    box = 1.0
    for best, worst in zip(low, high, strict=True):
        if not best < worst:
            raise ValueError(f"the ideal {tuple(ideal)} does not better the reference {tuple(reference)} everywhere")
        box *= worst - best
    lowered = []
    for point in points:
        values = _minimised(point, directions)
        if all(value < worst for value, worst in zip(values, high, strict=True)):
            lowered.append(tuple(max(value, best) for value, best in zip(values, low, strict=True)))
    return _volume(_front(lowered), high) / box


def ranked_axes(objectives: Sequence[Objective]) -> list[Objective]:
    """What one pays with first (accuracy and its like), then what one buys (CKA before others), else as they come."""
    order = sorted(objectives, key=lambda objective: objective.metric.removeprefix("val_") not in _ACCURACIES)
    return [*order[:1], *sorted(order[1:], key=lambda objective: objective.metric != "val_cka")]


def standard_error(share: float, n: int) -> float | None:
    """Binomial standard error of a share of ``n`` independent images; None where it is not defined."""
    if n < 1 or not 0.0 <= share <= 1.0:
        return None
    return math.sqrt(share * (1.0 - share) / n)


def error_of_mean_share(spread: float | None, share: float, n: int) -> float | None:
    """Standard error of a ``share`` of ``n`` images that is a mean over seeds: their ``spread``, where it tells any.

    A single seed has none (None), and seeds that all gave the same (0), as a linear probe's do, show nothing of what
    other images would have given: the binomial standard error stands in.
    """
    return standard_error(share, n) if spread is None or spread <= 0.0 else spread


def knee(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> int | None:
    """Index of the front point nearest to the ideal corner, each objective scaled by the front's range.

    The first of equally near ones. None for fewer than three points, or where they have no extent in some objective.
    """
    lowered = [_minimised(point, directions) for point in points]
    if len(lowered) < 3:
        return None
    low = [min(column) for column in zip(*lowered, strict=True)]
    high = [max(column) for column in zip(*lowered, strict=True)]
    if any(worst <= best for best, worst in zip(low, high, strict=True)):
        return None

    def distance(point: tuple[float, ...]) -> float:
        return math.hypot(*((v - best) / (worst - best) for v, best, worst in zip(point, low, high, strict=True)))

    return min(range(len(lowered)), key=lambda index: distance(lowered[index]))


def best_second_within(points: Sequence[Sequence[float]], directions: Sequence[Direction], error: float) -> int:
    """Index of the point best in the second objective among those within ``error`` of the best in the first.

    The first of equally good ones. Raises ValueError without points.
    """
    lowered = [_minimised(point, directions) for point in points]
    if not lowered:
        raise ValueError("there are no points to choose from")
    best = min(point[0] for point in lowered)
    within = [index for index, point in enumerate(lowered) if point[0] - best <= error]
    return min(within, key=lambda index: lowered[index][1])


def _minimised(point: Sequence[float], directions: Sequence[Direction]) -> tuple[float, ...]:
    return tuple(-x if way == "maximize" else x for x, way in zip(point, directions, strict=True))


def _front(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The minimised points that no other one dominates, each once. Whoever dominates a point is sorted before it."""
    found: list[tuple[float, ...]] = []
    for point in sorted(set(points)):
        if len(point) == 2:  # the last one found has the least second value so far
            if not found or point[1] < found[-1][1]:
                found.append(point)
        elif not any(_dominates(other, point) for other in found):
            found.append(point)
    return found


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in points)
    total = 0.0
    ordered = sorted(points, key=lambda point: point[-1])
    for index, point in enumerate(ordered):
        upper = ordered[index + 1][-1] if index + 1 < len(ordered) else reference[-1]
        if upper > point[-1]:
            total += (upper - point[-1]) * _volume([p[:-1] for p in ordered[: index + 1]], reference[:-1])
    return total
