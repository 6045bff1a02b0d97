"""The Gaussian process and the expected gain: theorems, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from simulation import LR, always, make_space

from repsim.front import hypervolume
from sweeps.space import Branch, Choice, Dimension, Range
from sweeps.surrogate import Encoding, Surrogate, expected_gain, squared_distances

Array = NDArray[np.float64]
GROUPS = np.array([0, 1])
METHODS = ("linear_probe", "full", "repsim", "partial+repsim", "partial+hcs")


def rows_of(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((n, 2))


def surface(rows: Array) -> Array:
    return np.sin(4 * rows[:, 0]) + rows[:, 1] ** 2


# points as rows


def encoding_of(*dimensions: Dimension) -> Encoding:
    return Encoding(make_space(dimensions=dimensions))


def distances(encoding: Encoding, a: dict[str, object], b: dict[str, object]) -> list[float]:
    """Per length scale."""
    rows = encoding.rows([a, b])
    return [float(x) for x in np.sqrt(squared_distances(rows[:1], rows[1:], encoding.groups)[:, 0, 0])]


def test_methods_are_apart_by_adapter_and_by_penalty() -> None:
    encoding = encoding_of(always("method", Choice(values=METHODS)))
    for a, b, expected in (
        ("repsim", "repsim", [0, 0]),
        ("repsim", "partial+repsim", [1, 0]),
        ("partial+hcs", "partial+repsim", [0, 1]),
        ("full", "repsim", [0, 1]),
        ("linear_probe", "partial+hcs", [1, 1]),
    ):
        assert distances(encoding, {"method": a}, {"method": b}) == pytest.approx(expected)


def test_numbers_are_apart_on_their_own_scale_and_an_absent_one_counts_as_the_lowest() -> None:
    strength = Dimension(
        key="strength",
        branches=(
            Branch(when={"penalty": ("repsim",)}, domain=Range(low=0.1, high=1.0, log=True)),
            Branch(when={"penalty": ("hcs",)}, domain=Choice(values=(1.0, 10.0))),
        ),
    )
    encoding = encoding_of(strength, always("optim.batch_size", Choice(values=(8, 16, 48))))
    start = {"strength": 0.1, "optim.batch_size": 8}
    assert distances(encoding, start, {"strength": 10.0, "optim.batch_size": 48}) == pytest.approx([1, 1])
    assert distances(encoding, start, {"strength": 1.0, "optim.batch_size": 8}) == pytest.approx([0.5, 0])
    assert distances(encoding, start, {"strength": None, "optim.batch_size": 8}) == pytest.approx([0, 0])
    straight = encoding_of(always("optim.weight_decay", Range(low=0.0, high=0.4)))
    assert distances(straight, {"optim.weight_decay": 0.1}, {"optim.weight_decay": 0.3}) == pytest.approx([0.5])


def test_choices_that_python_takes_for_equal_are_apart_and_single_values_count_for_nothing() -> None:
    encoding = encoding_of(
        always("method", Choice(values=("full",))),
        always("optim.lr", Range(low=1e-4, high=1e-4)),
        always("data.fractions", Choice(values=([0.6, 0.2, 0.2], [0.5, 0.25, 0.25]))),
        always("measure.sharpness", Choice(values=(True, 1))),
    )
    assert list(encoding.groups) == [0, 0, 1, 1]
    a = {"data.fractions": [0.6, 0.2, 0.2], "measure.sharpness": True}
    assert distances(encoding, a, a | {"measure.sharpness": 1}) == pytest.approx([0, 1])


# the process


def test_it_follows_what_it_was_told_and_is_less_sure_far_away() -> None:
    rows = rows_of(40) / 2
    model = Surrogate(rows, surface(rows), GROUPS)
    new = rows_of(20, seed=1) / 2
    mean, spread = model.predict(new)
    assert np.abs(mean - surface(new)).max() < 0.1 * surface(rows).std()
    assert model.predict(np.array([[1.0, 1.0]]))[1][0] > 3 * spread.mean()


def test_noise_is_not_followed() -> None:
    rows = rows_of(80)
    luck = np.random.default_rng(2).normal(0, 0.3, 80)
    model = Surrogate(rows, surface(rows) + luck, GROUPS)
    off = model.predict(rows)[0] - surface(rows)
    assert off.std() < 0.6 * luck.std()


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rows = rows_of(15)
    doubt = np.linspace(1, 4, 15)
    model = Surrogate(rows, surface(rows), GROUPS, doubt)
    squares, targets = squared_distances(rows, rows, GROUPS), surface(rows) - surface(rows).mean()
    for x in (np.array([-0.3, 0.4, -2.0]), np.array([0.5, -1.0, -4.0])):
        off = check_grad(
            lambda x: model._likelihood(squares, targets, x)[0],
            lambda x: model._likelihood(squares, targets, x)[1],
            x,
            epsilon=1e-6,
        )
        assert off < 1e-3


def test_the_kernel_is_materns() -> None:
    """One point told, no doubt to speak of: the mean at a distance is the kernel itself, up to the noise."""
    rows = np.array([[0.0, 0.0], [0.0, 50.0]])
    model = Surrogate(rows, np.array([1.0, -1.0]), GROUPS)
    at = np.array([[0.3, 0.0], [0.0, 0.0]])
    near, here = model.predict(at)[0]
    r = 0.3 / math.exp(model._found.scales[0])
    assert near / here == pytest.approx((1 + math.sqrt(5) * r + 5 * r**2 / 3) * math.exp(-math.sqrt(5) * r))


def test_units_do_not_matter() -> None:
    rows, new = rows_of(20), rows_of(5, seed=1)
    plain = Surrogate(rows, surface(rows), GROUPS).predict(new)
    other = Surrogate(rows, 1000 * surface(rows) - 7, GROUPS).predict(new)
    np.testing.assert_allclose(other[0], 1000 * plain[0] - 7, rtol=1e-6)
    np.testing.assert_allclose(other[1], 1000 * plain[1], rtol=1e-6)


def test_equal_values_everywhere_are_no_trouble() -> None:
    mean, spread = Surrogate(rows_of(6), np.full(6, 0.5), GROUPS).predict(rows_of(3, seed=1))
    assert mean == pytest.approx(0.5)
    assert np.isfinite(spread).all()


def test_a_doubtful_value_counts_for_less() -> None:
    rows = np.vstack([rows_of(20), [[0.5, 0.5]]])
    values = np.append(surface(rows)[:-1], 5.0)
    sure = Surrogate(rows, values, GROUPS)
    doubtful = Surrogate(rows, values, GROUPS, np.append(np.ones(20), 100.0))
    at = np.array([[0.5, 0.5]])
    assert doubtful.predict(at)[0][0] < sure.predict(at)[0][0]


def test_believing_leaves_the_mean_and_takes_the_doubt_near_a_trial_under_way() -> None:
    rows = rows_of(15)
    model = Surrogate(rows, surface(rows), GROUPS)
    waiting, near, far = np.array([[0.9, 0.1]]), np.array([[0.88, 0.12]]), np.array([[0.1, 0.9]])
    told = model.believing(waiting)
    assert told.predict(near)[0] == pytest.approx(model.predict(near)[0], abs=1e-3)
    assert told.predict(near)[1][0] < 0.9 * model.predict(near)[1][0]
    assert told.predict(far)[1][0] == pytest.approx(model.predict(far)[1][0], rel=0.05)
    assert model.believing(rows[:0]) is model


# the gain


@pytest.mark.parametrize("objectives", [2, 3])
def test_without_doubt_the_gain_is_that_of_the_hypervolume(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front = rng.random((5, objectives))
    candidates = rng.random((6, objectives)) + 0.1
    found = expected_gain(candidates, np.zeros_like(candidates), front, 40_000, rng)
    box = ([0.0] * objectives, [2.0] * objectives, ["maximize"] * objectives)
    before = hypervolume(front.tolist(), *box)
    exact = np.array([hypervolume([*front.tolist(), one], *box) - before for one in candidates.tolist()])
    assert (exact > 0).any()
    np.testing.assert_allclose(found / found.sum(), exact / exact.sum(), atol=0.02)


def test_a_dominated_candidate_gains_nothing_without_doubt_and_something_with_it() -> None:
    front, candidate = np.array([[0.5, 0.5]]), np.array([[0.4, 0.4]])
    sure = expected_gain(candidate, np.zeros((1, 2)), front, 500, np.random.default_rng(0))
    unsure = expected_gain(candidate, np.full((1, 2), 0.2), front, 500, np.random.default_rng(0))
    assert sure[0] == 0
    assert unsure[0] > 0


def test_whatever_is_worse_than_the_reference_gains_nothing() -> None:
    found = expected_gain(np.array([[2.0, -0.1]]), np.zeros((1, 2)), np.zeros((0, 2)), 100, np.random.default_rng(0))
    assert found[0] == 0


def test_the_space_of_the_default_question_has_a_scale_for_each_part() -> None:
    encoding = encoding_of(always("method", Choice(values=METHODS)), always("optim.lr", LR))
    assert list(encoding.groups) == [0, 0, 0, 1, 1, 1, 2]
