"""A curve through scattered points, and how far it can be trusted: local lines, made robust, with a bootstrap band.

At each place x of a grid a line is fitted to all points, weighted by a normal kernel whose reach is the distance from x
to the nearest share of them, and its value at x is the curve (local linear regression: Cleveland and Devlin 1988; Fan
1992). Points far off count less: the fit is repeated with Tukey's bisquare weights of the residuals over six times
their median size (Cleveland 1979), so that one trial that went wrong does not bend the curve. The share is three
quarters of that with which points are foretold best by the others (leave one out): a curve that is a little too
restless has a band around it that lies right, one that is too smooth has not.

The band is the percentile bootstrap's: points are drawn again with replacement and fitted with the same kernels, and
what the curve follows of their own noise is made up for by sqrt(n / (n - its degrees of freedom)). It says where the
curve of such trials lies, whatever else varied among them, and not where the next trial will.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 12
"""Points from which a curve is drawn: a local line through half of fewer goes nearly through its points, and their
spread around it says nothing of how far it can be trusted."""
MIN_PLACES = 4
"""Distinct places, so that a curve has something to follow; so many are within reach everywhere."""
LEVEL = 0.90
GRID = 41
RESAMPLES = 400
"""Fewer, down to a hundred, from 500 points up."""
_ROUNDS = 2
_UNDER = 0.75
_SHARES = (0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
_NEAREST = 5
_JUDGED = 200
_FIRST_SHARE = 0.3
_TUKEY = 6.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values along ``x``, and the 90 % band around them; ``n`` points are behind it."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def smooth(x: Sequence[float], y: Sequence[float], seed: int = 0) -> Curve | None:
    """The curve of ``y`` over ``x`` (n,), between its ends; None where there are too few points or places."""
    places, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n = len(places)
    if n < MIN_POINTS or len(set(places.tolist())) < MIN_PLACES:
        return None
    grid = np.linspace(places.min(), places.max(), GRID)
    share = _UNDER * _best_share(places, values)
    kernel = _kernel(places, grid, share)
    rows = max(100, min(RESAMPLES, 200_000 // n))
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=rows)
    curve = _fits(places, values, np.ones((1, n)), grid, kernel)[0]
    again = _fits(places, values, drawn.astype(np.float64), grid, kernel)
    ends = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    low, high = curve + _inflation(places, share) * (ends - curve)
    told = (tuple(line.tolist()) for line in (grid, curve, low, high))
    return Curve(**dict(zip(("x", "y", "low", "high"), told, strict=True)), n=n)


def _kernel(places: Floats, grid: Floats, share: float) -> Floats:
    """Weights (grid, n) of the points at each place of the grid.

    The nearest five points and four places are always within reach: a list of strengths has many points in each place.
    """
    distance = np.abs(grid[:, None] - places[None, :])
    count = max(_NEAREST, math.ceil(share * len(places)))
    reach = np.partition(distance, count - 1, axis=1)[:, count - 1]
    apart = np.partition(np.abs(grid[:, None] - np.unique(places)[None, :]), MIN_PLACES - 1, axis=1)[:, MIN_PLACES - 1]
    reach = np.maximum(reach, apart)[:, None]
    found: Floats = np.exp(-0.5 * (distance / (0.5 * reach)) ** 2)
    return found


def _judged(n: int) -> NDArray[np.int64]:
    """Which points a curve is judged at: all, or some of very many."""
    return np.arange(0, n, math.ceil(n / _JUDGED))


def _trusted(places: Floats, values: Floats) -> Floats:
    """Weights (n,) of the points, less for those far off a first curve."""
    grid = np.linspace(places.min(), places.max(), GRID)
    everyone = np.ones((1, len(places)))
    first = _fits(places, values, everyone, grid, _kernel(places, grid, _FIRST_SHARE))
    found: Floats = _bisquare(values, _between(places, grid, first), everyone)[0]
    return found


def _best_share(places: Floats, values: Floats) -> float:
    """The share of points within reach with which the others foretell a point best; of a tie, the widest."""
    some, trusted = _judged(len(places)), _trusted(places, values)
    errors = []
    for share in _SHARES:
        kernel = _kernel(places, places[some], share)
        kernel[np.arange(len(some)), some] = 0.0
        told = _lines(places, values, trusted[None, :], places[some], kernel)[0]
        errors.append(float((trusted[some] * np.abs(told - values[some])).sum()))
    return max(share for share, error in zip(_SHARES, errors, strict=True) if error <= min(errors))


def _inflation(places: Floats, share: float) -> float:
    """sqrt(n / (n - degrees of freedom)) of the curve without its robust weights, at most 2."""
    some = _judged(len(places))
    offset = places[None, :] - places[some][:, None]
    kernel = _kernel(places, places[some], share)
    s0, s1, s2 = ((kernel * offset**power).sum(axis=1) for power in range(3))
    spread = s0 * s2 - s1**2
    # how much of a point's own value is in the curve at its place
    own = np.divide(s2, spread, out=1.0 / s0, where=spread > 0)
    return 1.0 / math.sqrt(1.0 - min(float(own.mean()), 0.75))


def _fits(places: Floats, values: Floats, drawn: Floats, grid: Floats, kernel: Floats) -> Floats:
    """Curves (rows, grid), where point i was drawn ``drawn`` (rows, n) times."""
    weights, curves = drawn, np.zeros((len(drawn), len(grid)))
    for round_ in range(_ROUNDS + 1):
        curves = _lines(places, values, weights, grid, kernel)
        if round_ < _ROUNDS:
            weights = drawn * _bisquare(values, _between(places, grid, curves), drawn)
    return curves


def _lines(places: Floats, values: Floats, weights: Floats, grid: Floats, kernel: Floats) -> Floats:
    """The weighted lines' values (rows, grid) at the grid's places."""
    offset = places[None, :] - grid[:, None]
    s0, s1, s2 = (weights @ (kernel * offset**power).T for power in range(3))
    t0, t1 = (weights @ (kernel * offset**power * values).T for power in range(2))
    spread = s0 * s2 - s1**2
    # drawn points that lie in one place have no line, only a mean, and where none is near there is that of all
    straight = spread > 1e-9 * (places.max() - places.min()) ** 2 * s0**2
    overall = (weights @ values / weights.sum(axis=1))[:, None] * np.ones_like(t0)
    mean = np.divide(t0, s0, out=overall, where=s0 > 0)
    found: Floats = np.divide(s2 * t0 - s1 * t1, spread, out=mean, where=straight)
    return found


def _between(places: Floats, grid: Floats, curves: Floats) -> Floats:
    """The curves (rows, grid) at the points' places (rows, n), by linear interpolation."""
    step = grid[1] - grid[0]
    left = np.clip(np.floor((places - grid[0]) / step).astype(np.int64), 0, len(grid) - 2)
    part = (places - grid[left]) / step
    found: Floats = curves[:, left] * (1 - part) + curves[:, left + 1] * part
    return found


def _bisquare(values: Floats, told: Floats, drawn: Floats) -> Floats:
    """Tukey's weights (rows, n) of residuals from curves ``told`` (rows, n), by their median size among the drawn."""
    size = np.abs(values - told)
    order = np.argsort(size, axis=1)
    reached = np.cumsum(np.take_along_axis(drawn, order, axis=1), axis=1)
    middle = np.argmax(reached >= 0.5 * drawn.sum(axis=1, keepdims=True), axis=1)
    median = np.take_along_axis(np.take_along_axis(size, order, axis=1), middle[:, None], axis=1)
    # where most points are on their curve, up to rounding, its residuals have no size to judge others by
    known = median > 1e-9 * (values.max() - values.min())
    scaled = np.divide(size, _TUKEY * median, out=np.zeros_like(size), where=known)
    found: Floats = np.where(scaled < 1, (1 - scaled**2) ** 2, 0.0)
    return found
