"""Every registered measure is held to what it declares, and to what it does not."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group

from repsim.errors import DegenerateInputError
from repsim.similarity import REGISTRY, Measure
from repsim.similarity.measure import Invariance

Matrix = NDArray[np.float64]
Pair = tuple[Matrix, Matrix]
MEASURES = [pytest.param(measure, id=name) for name, measure in REGISTRY.items()]
INVARIANCES: tuple[Invariance, ...] = get_args(Invariance)
N, D = 120, 8


def pair(seed: int, n: int = N, d: int = D) -> Pair:
    """Features whose columns differ in size and have means, and features that share part of them."""
    rng = np.random.default_rng([seed, n, d])
    x = rng.normal(size=(n, d)) * np.geomspace(4, 0.5, d) + rng.normal(size=d)
    return x, x + 2.0 * rng.normal(size=(n, d)) + rng.normal(size=d)


def moved(invariance: Invariance, features: Matrix, seed: int) -> Matrix:
    """One side under a map of its columns."""
    rng = np.random.default_rng([seed, 7])
    d = features.shape[1]
    if invariance == "orthogonal":
        turned: Matrix = features @ np.asarray(ortho_group.rvs(d, random_state=seed))
        return turned
    if invariance == "isotropic_scale":
        return 3.7 * features
    if invariance == "translation":
        return features + 3.0 * rng.normal(size=d)
    assert invariance == "invertible_linear"
    turn = np.asarray(ortho_group.rvs(d, random_state=seed))
    stretched: Matrix = features @ turn @ np.diag(np.geomspace(1, 30, d)) @ turn.T
    return stretched


def changes(measure: Measure, invariance: Invariance, seed: int) -> list[float]:
    """How far the value moves when either side is moved; for ``permutation``, both at once."""
    x, y = pair(seed)
    before = measure(x, y)
    if invariance == "permutation":
        order = np.random.default_rng(seed).permutation(len(x))
        return [abs(measure(x[order], y[order]) - before)]
    return [
        abs(measure(moved(invariance, x, seed), y) - before),
        abs(measure(x, moved(invariance, y, seed)) - before),
    ]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("invariance", INVARIANCES)
def test_a_declared_invariance_holds_and_one_not_declared_has_a_witness(
    measure: Measure, invariance: Invariance
) -> None:
    found = [change for seed in range(4) for change in changes(measure, invariance, seed)]
    if invariance in measure.invariances:
        assert max(found) <= 1e-9
    else:
        assert max(found) > 0.01


@pytest.mark.parametrize("measure", MEASURES)
def test_symmetry_is_as_declared(measure: Measure) -> None:
    found = []
    for seed in range(4):
        x, y = pair(seed)
        y = y[:, :5]
        found.append(abs(measure(x, y) - measure(y, x)))
    assert max(found) <= 1e-12 if measure.symmetric else max(found) > 0.01


@pytest.mark.parametrize("measure", MEASURES)
def test_features_compared_with_themselves_give_the_declared_value(measure: Measure) -> None:
    x, y = pair(0)
    alike, less = measure(x, x), measure(x, y)
    if measure.identical is None:
        assert 0.9 < alike < 1
    else:
        assert alike == pytest.approx(measure.identical, abs=1e-7)
    unrelated = measure(x, np.random.default_rng(5).normal(size=x.shape))
    ranking = [alike, less, unrelated] if measure.higher_is_closer else [unrelated, less, alike]
    assert ranking == sorted(ranking, reverse=True)
    assert ranking[0] > ranking[1] + 0.05
    assert ranking[1] > ranking[2] + 0.05


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(4, 3, 3), (5, 2, 40), (30, 60, 7), (150, 3, 4), (7, 1, 1)])
def test_values_are_finite_and_in_range_or_refused_by_name(measure: Measure, n: int, d_x: int, d_y: int) -> None:
    refused = {
        ("pwcca", n): d_x + d_y >= n or d_x >= n,
        ("rsa", n): min(d_x, d_y) == 1,
    }
    for seed in range(3):
        rng = np.random.default_rng([seed, n])
        x, y = rng.normal(size=(n, d_x)), rng.normal(size=(n, d_y)) ** 3
        if refused.get((measure.name, n), False):
            with pytest.raises(DegenerateInputError, match=r"needs more than|no variance over its features"):
                measure(x, y)
            continue
        for a, b in ((x, y), (x, -x[:, ::-1])):
            value = measure(a, b)
            assert isinstance(value, float)
            assert measure.range[0] <= value <= measure.range[1]
            assert np.isfinite(value)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_fewest_rows_are_what_is_declared(measure: Measure) -> None:
    rng = np.random.default_rng(3)
    d = 1 if measure.name == "pwcca" else 3
    x, y = rng.normal(size=(measure.min_rows, d)), rng.normal(size=(measure.min_rows, d))
    assert np.isfinite(measure(x, y))
    few = measure.min_rows - 1
    with pytest.raises(DegenerateInputError, match=f"needs at least {measure.min_rows} rows, not {few}"):
        measure(x[:few], y[:few])


@pytest.mark.parametrize("measure", MEASURES)
def test_degenerate_input_is_refused_by_name(measure: Measure) -> None:
    x, y = pair(0, n=40)
    constant = np.full_like(y, 0.1)
    for a, b in ((x, constant), (constant, x)):
        with pytest.raises(DegenerateInputError, match="features are constant"):
            measure(a, b)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = y.copy()
        spoilt[3, 2] = bad
        with pytest.raises(DegenerateInputError, match="features must be finite"):
            measure(x, spoilt)
    with pytest.raises(DegenerateInputError, match=r"equally many rows, not \(40, 8\) and \(39, 8\)"):
        measure(x, y[:39])
    with pytest.raises(DegenerateInputError, match="two matrices"):
        measure(x[0], y[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_one_constant_column_or_two_equal_rows_are_no_reason_to_refuse(measure: Measure) -> None:
    x, y = pair(1)
    x[:, 3] = 1.0
    y[7] = y[8]
    value = measure(x, y)
    assert measure.range[0] <= value <= measure.range[1]


@pytest.mark.parametrize(
    "measure", [m for m in REGISTRY.values() if "permutation" in m.invariances], ids=lambda m: m.name
)
def test_many_equal_rows_do_not_bring_their_order_in(measure: Measure) -> None:
    for seed in range(3):
        x, y = pair(seed, n=30)
        x[10:25], y[5:20] = x[0], y[1]
        before = measure(x, y)
        shuffled = measure.reordered(x, y)
        for number in range(4):
            order = np.random.default_rng([seed, number]).permutation(30)
            assert measure(x[order], y[order]) == pytest.approx(before, abs=1e-9)
            if measure.name != "pwcca":  # equal rows can meet so that correlations coincide at 1: weights are arbitrary
                assert shuffled(order) == pytest.approx(measure(x, y[order]), abs=1e-9)
        if measure.identical is not None:
            assert measure(x, x) == pytest.approx(measure.identical, abs=1e-7)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("factor", [2.0**400, 2.0**-400, 2.0**900])
def test_values_near_the_ends_of_the_floating_range_change_nothing(measure: Measure, factor: float) -> None:
    x, y = pair(2)
    assert measure(factor * x, y) == pytest.approx(measure(x, y), abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_floats_are_measured_in_float64(measure: Measure, dtype: type[np.floating]) -> None:
    x, y = (side.astype(dtype) for side in pair(3))
    assert measure(x, y) == measure(x.astype(np.float64), y.astype(np.float64))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("n", "d"), [(40, 60), (150, 6)])
def test_reordered_rows_give_what_recomputing_gives(measure: Measure, n: int, d: int) -> None:
    if measure.name == "pwcca" and n == 40:
        n, d = 40, 12
    x, y = pair(4, n=n, d=d)
    value = measure.reordered(x, y)
    for order in (np.arange(n), np.random.default_rng(0).permutation(n)):
        assert value(order) == pytest.approx(measure(x, y[order]), abs=1e-10)


def test_every_measure_says_what_it_is() -> None:
    for name, measure in REGISTRY.items():
        assert measure.name == name
        assert measure.title
        assert measure.estimator
        assert measure.paper
        assert measure.invariances <= set(INVARIANCES)
        assert measure.range[0] < measure.range[1]
        doc = measure.function.__doc__
        assert doc is not None
    assert len({(m.title, m.estimator) for m in REGISTRY.values()}) == len(REGISTRY)
