"""Local lines: exact where they must be, not bent by one odd point, and bands that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from reports.chapters.smoothing import MIN_PLACES, MIN_POINTS, Curve, smooth


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-2 * x))


def test_a_straight_line_stays_one_and_its_band_is_nothing() -> None:
    x = np.random.default_rng(0).uniform(-1, 2, 30)
    curve = smooth(x, 3 * x - 1)
    assert curve is not None
    assert np.array(curve.y) == pytest.approx(3 * np.array(curve.x) - 1, abs=1e-9)
    assert np.array(curve.high) - np.array(curve.low) == pytest.approx(np.zeros(len(curve.x)), abs=1e-6)


def test_moving_and_stretching_the_points_does_it_to_the_curve() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, 25)
    y = logistic(4 * x - 2) + rng.normal(0, 0.05, 25)
    told, again = smooth(x, y), smooth(10 * x + 3, -2 * y + 5)
    assert told is not None
    assert again is not None
    assert np.array(again.y) == pytest.approx(5 - 2 * np.array(told.y))
    assert np.array(again.low) == pytest.approx(5 - 2 * np.array(told.high), abs=1e-6)


def test_one_trial_that_went_wrong_does_not_bend_the_curve() -> None:
    rng = np.random.default_rng(2)
    x = np.linspace(-1.5, 1.5, 30)
    y = logistic(x) + rng.normal(0, 0.01, 30)
    odd = y.copy()
    odd[15] -= 0.5
    told, bent = smooth(x, y), smooth(x, odd)
    assert told is not None
    assert bent is not None
    moved = np.abs(np.array(told.y) - np.array(bent.y)).max()
    assert moved < 0.02
    three = y.copy()
    three[13:18] -= 0.5  # five neighbours in a row are no accident
    dip = smooth(x, three)
    assert dip is not None
    assert np.abs(np.array(told.y) - np.array(dip.y)).max() > 0.2


def test_the_band_holds_what_it_says() -> None:
    """Of 90 % bands around a bent curve, with and without odd trials, most places hold the truth, and not all do."""
    for odd in (0.0, 0.08):
        held = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            x = rng.uniform(-1.5, 1.5, 25)
            y = logistic(x) + rng.normal(0, 0.03, 25) - 0.4 * (rng.uniform(size=25) < odd)
            curve = smooth(x, y, seed)
            assert curve is not None
            truth = logistic(np.array(curve.x))
            held.append(float(np.mean((truth >= curve.low) & (truth <= curve.high))))
        assert 0.78 < np.mean(held) < 0.97


def test_the_band_narrows_with_trials() -> None:
    widths = []
    for n in (15, 60, 600):
        rng = np.random.default_rng(4)
        x = rng.uniform(-1.5, 1.5, n)
        curve = smooth(x, logistic(x) + rng.normal(0, 0.05, n))
        assert curve is not None
        widths.append(float(np.median(np.array(curve.high) - np.array(curve.low))))
    assert widths[0] > 1.5 * widths[1] > 3 * widths[2]


def test_too_few_points_or_places_have_no_curve() -> None:
    x = np.linspace(0, 1, MIN_POINTS)
    rng = np.random.default_rng(5)
    y = rng.normal(size=MIN_POINTS)
    assert isinstance(smooth(x, y), Curve)
    assert smooth(x[1:], y[1:]) is None
    places = np.arange(40) % MIN_PLACES
    assert isinstance(smooth(places, rng.normal(size=40)), Curve)
    assert smooth(np.arange(40) % (MIN_PLACES - 1), rng.normal(size=40)) is None


def test_a_list_of_strengths_has_a_curve_near_its_means() -> None:
    rng = np.random.default_rng(6)
    places = np.repeat([-1.0, 0.0, 0.5, 1.0], 10)
    means = {-1.0: 0.2, 0.0: 0.4, 0.5: 0.7, 1.0: 0.8}
    curve = smooth(places, [means[float(x)] + rng.normal(0, 0.02) for x in places])
    assert curve is not None
    assert curve.y[0] == pytest.approx(0.2, abs=0.06)
    assert curve.y[-1] == pytest.approx(0.8, abs=0.06)
    assert np.all(np.array(curve.low) <= np.array(curve.high))
