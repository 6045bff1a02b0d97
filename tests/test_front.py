"""Dominance, fronts and hypervolume, against their definitions and closed forms."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from repsim.front import dominates, hypervolume, nondominated
from repsim.records import Direction

Point = tuple[float, ...]
UP, DOWN = "maximize", "minimize"
EVERY_WAY: list[tuple[Direction, ...]] = [
    *itertools.product((UP, DOWN), repeat=2),
    *itertools.product((UP, DOWN), repeat=3),
]


def grid(ways: Sequence[Direction]) -> list[Point]:
    return list(itertools.product((0, 1, 2) if len(ways) == 2 else (0, 1), repeat=len(ways)))


def is_better(a: float, b: float, way: Direction) -> bool:
    return a > b if way == UP else a < b


@pytest.mark.parametrize("ways", EVERY_WAY)
def test_dominance_is_its_definition_for_every_pair(ways: tuple[Direction, ...]) -> None:
    for a, b in itertools.product(grid(ways), repeat=2):
        never_worse = not any(is_better(y, x, way) for x, y, way in zip(a, b, ways, strict=True))
        once_better = any(is_better(x, y, way) for x, y, way in zip(a, b, ways, strict=True))
        assert dominates(a, b, ways) == (never_worse and once_better), (a, b)
        assert not (dominates(a, b, ways) and dominates(b, a, ways))


@pytest.mark.parametrize("ways", EVERY_WAY)
def test_the_front_is_what_nothing_dominates_for_every_small_set(ways: tuple[Direction, ...]) -> None:
    for size in (0, 1, 2, 3):
        for points in itertools.combinations_with_replacement(grid(ways), size):
            expected = [not any(dominates(other, point, ways) for other in points) for point in points]
            assert nondominated(points, ways) == expected, points
            assert any(expected) == bool(points)


def test_equal_points_are_all_on_the_front() -> None:
    assert nondominated([(1, 1), (1, 1), (0, 1)], [UP, UP]) == [True, True, False]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="shorter than argument 1"):
        dominates((1, 2), (1, 2), [UP])
    with pytest.raises(ValueError, match="longer than argument 1"):
        nondominated([(1,)], [UP, UP])


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_a_staircase_has_its_closed_form(n: int) -> None:
    steps = [(i, n - i) for i in range(1, n)]
    assert hypervolume(steps, (0, 0), (n, n), [UP, UP]) == pytest.approx(n * (n - 1) / 2 / n**2)
    mirrored = [(n - x, y) for x, y in steps]
    assert hypervolume(mirrored, (n, 0), (0, n), [DOWN, UP]) == pytest.approx(n * (n - 1) / 2 / n**2)


def test_single_points_have_the_share_of_their_box() -> None:
    assert hypervolume([], (0, 0), (1, 1), [UP, UP]) == 0
    assert hypervolume([(1, 1)], (0, 0), (1, 1), [UP, UP]) == 1
    assert hypervolume([(0.5, 0.25)], (0, 0), (1, 1), [UP, UP]) == 0.125
    assert hypervolume([(0.9, 0.02)], (0.7, 0.1), (1.0, 0.0), [UP, DOWN]) == pytest.approx(0.2 / 0.3 * 0.8)
    assert hypervolume([(3,), (2,)], (0,), (4,), [UP]) == 0.75


def test_points_outside_count_nothing_and_points_beyond_the_ideal_are_cut() -> None:
    inside = [(0.5, 0.5)]
    volume = hypervolume(inside, (0, 0), (1, 1), [UP, UP])
    for outside in [(0, 1), (1, 0), (-1, 1), (0.9, -0.1), (0, 0)]:
        assert hypervolume([outside], (0, 0), (1, 1), [UP, UP]) == 0
        assert hypervolume([*inside, outside], (0, 0), (1, 1), [UP, UP]) == volume
    assert hypervolume([(9, 0.5)], (0, 0), (1, 1), [UP, UP]) == 0.5
    assert hypervolume([(9, 9)], (0, 0), (1, 1), [UP, UP]) == 1


def share_of_cells(points: Sequence[Point], side: int, ways: Sequence[Direction]) -> float:
    """The unit cells of the box [0, side]^d that some point of whole numbers covers, counted one by one."""
    raised = [[x if way == UP else side - x for x, way in zip(point, ways, strict=True)] for point in points]
    cells = itertools.product(range(side), repeat=len(ways))
    covered = sum(any(all(x > low for x, low in zip(point, cell, strict=True)) for point in raised) for cell in cells)
    return covered / side ** len(ways)


@pytest.mark.parametrize("ways", EVERY_WAY)
def test_the_volume_is_the_one_counted_cell_by_cell(ways: tuple[Direction, ...]) -> None:
    rng = random.Random(4)
    side = 5
    reference = tuple(0 if way == UP else side for way in ways)
    ideal = tuple(side if way == UP else 0 for way in ways)
    for size in (1, 2, 3, 5, 8, 13) * 3:
        points = [tuple(rng.randrange(-1, side + 2) for _ in ways) for _ in range(size)]
        assert hypervolume(points, reference, ideal, ways) == pytest.approx(share_of_cells(points, side, ways)), points


@pytest.mark.parametrize("dimensions", [2, 3])
def test_more_points_never_cover_less_and_neither_order_nor_copies_matter(dimensions: int) -> None:
    rng = random.Random(5)
    ways: list[Direction] = [UP] * dimensions
    box = ([0.0] * dimensions, [1.0] * dimensions)
    points: list[Point] = []
    before = 0.0
    for _ in range(25):
        new = tuple(rng.random() for _ in ways)
        dominated = any(dominates(old, new, ways) for old in points)
        points.append(new)
        volume = hypervolume(points, *box, ways)
        assert volume == pytest.approx(before) if dominated else volume > before
        before = volume
    shuffled = rng.sample(points * 2, 2 * len(points))
    assert hypervolume(shuffled, *box, ways) == pytest.approx(before)
    front = [point for point, kept in zip(points, nondominated(points, ways), strict=True) if kept]
    assert len(front) < len(points)
    assert hypervolume(front, *box, ways) == pytest.approx(before)


@pytest.mark.parametrize(
    ("reference", "ideal", "ways"),
    [
        ((0, 1), (1, 1), (UP, UP)),
        ((0, 0), (1, -1), (UP, UP)),
        ((0, 0), (1, 1), (UP, DOWN)),
        ((0, 0), (1, float("nan")), (UP, UP)),
    ],
)
def test_an_empty_box_is_refused(reference: Point, ideal: Point, ways: tuple[Direction, ...]) -> None:
    with pytest.raises(ValueError, match=r"the ideal \(1, .*\) does not better the reference \(0, .*\) everywhere"):
        hypervolume([(0.5, 0.5)], reference, ideal, ways)
