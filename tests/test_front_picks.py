"""Which points of a front are recommended: the knee, the most similar one within an error, and what they do not see."""

from __future__ import annotations

import random

import pytest

from repsim.front import best_second_within, error_of_mean_share, knee, ranked_axes, standard_error
from repsim.records import Direction, Objective

UP, DOWN = "maximize", "minimize"
BOTH: tuple[Direction, Direction] = (UP, UP)


def mirrored(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same front, of objectives that are to be small."""
    return [(-a, -b) for a, b in points]


def test_the_knee_is_nearest_to_the_ideal_corner() -> None:
    points = [(0.9, 0.1), (0.85, 0.8), (0.3, 0.9)]
    assert knee(points, BOTH) == 1
    assert knee(mirrored(points), (DOWN, DOWN)) == 1
    assert knee([(0.9, 0.1), (0.35, 0.2), (0.3, 0.9)], BOTH) != 1


def test_the_knee_does_not_see_units_or_zero_points() -> None:
    rng = random.Random(1)
    for _ in range(50):
        points = [(rng.random(), rng.random()) for _ in range(6)]
        moved = [(1000.0 * a - 7.0, 0.001 * b + 3.0) for a, b in points]
        assert knee(points, BOTH) == knee(moved, BOTH)
        assert knee(points, BOTH) == knee(mirrored(points), (DOWN, DOWN))


@pytest.mark.parametrize("points", [[], [(1.0, 0.0)], [(1.0, 0.0), (0.0, 1.0)], [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)]])
def test_a_front_without_extent_has_no_knee(points: list[tuple[float, float]]) -> None:
    assert knee(points, BOTH) is None


def test_the_best_second_is_looked_for_within_the_error_alone() -> None:
    points = [(0.90, 0.1), (0.88, 0.5), (0.80, 0.9)]
    assert best_second_within(points, BOTH, 0.0) == 0
    assert best_second_within(points, BOTH, 0.03) == 1
    assert best_second_within(points, BOTH, 1.0) == 2
    assert best_second_within(mirrored(points), (DOWN, DOWN), 0.03) == 1, "a loss within the error, not any smaller one"
    with pytest.raises(ValueError, match="no points to choose from"):
        best_second_within([], BOTH, 0.1)


def test_accuracy_is_paid_and_similarity_is_bought() -> None:
    named = {
        metric: Objective(metric=metric, direction=UP)
        for metric in ("val_cka", "sharpness", "val_auc", "val_accuracy", "val_procrustes")
    }

    def order(*metrics: str) -> list[str]:
        return [objective.metric for objective in ranked_axes([named[metric] for metric in metrics])]

    assert order("val_cka", "val_accuracy") == ["val_accuracy", "val_cka"]
    assert order("sharpness", "val_cka", "val_accuracy") == ["val_accuracy", "val_cka", "sharpness"]
    assert order("val_procrustes", "val_auc", "sharpness") == ["val_auc", "val_procrustes", "sharpness"]
    assert order("val_accuracy", "val_auc") == ["val_accuracy", "val_auc"]
    assert order("sharpness", "val_cka") == ["sharpness", "val_cka"], "nothing is paid with: as they come"


def test_the_error_of_a_share_is_binomial() -> None:
    assert standard_error(0.9, 100) == pytest.approx(0.03)
    assert standard_error(1.0, 50) == 0.0
    assert standard_error(0.9, 0) is None
    assert standard_error(1.2, 10) is None


def test_seeds_without_a_spread_leave_the_error_of_the_images() -> None:
    assert error_of_mean_share(0.004, 0.9, 100) == 0.004
    assert error_of_mean_share(0.0, 0.9, 100) == pytest.approx(0.03)
    assert error_of_mean_share(None, 0.9, 100) == pytest.approx(0.03)
    assert error_of_mean_share(None, 0.9, 0) is None
