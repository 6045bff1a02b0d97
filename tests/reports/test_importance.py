"""PED-ANOVA: held to Optuna's, its invariances, settings with and without a say, its standard error and chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from reports.chapters.importance import (
    BEST,
    IN_BEST,
    MIN_TRIALS,
    Cells,
    among_best,
    category_cells,
    density,
    importance,
    local_importance,
    number_cells,
)


def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A number, a number over decades, a category, and a loss that hears of all three."""
    rng = np.random.default_rng(seed)
    x, lr = rng.uniform(-1, 3, n), 10 ** rng.uniform(-5, -2, n)
    kind = rng.choice(list("abcd"), n)
    loss = (x - 1) ** 2 + 0.1 * np.log10(lr) ** 2 + 0.5 * (kind == "a") + rng.normal(0, 0.1, n)
    return x, lr, kind, loss


def optunas(values: dict[str, Sequence[object]], loss: np.ndarray, best: float, region: float) -> dict[str, float]:
    """Optuna's importances, not divided by their sum; ``lr`` is on a logarithmic scale, text a category."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import PedAnovaImportanceEvaluator

    def distribution(name: str) -> BaseDistribution:
        if isinstance(values[name][0], str):
            return CategoricalDistribution(sorted(set(map(str, values[name]))))
        numbers = np.asarray(values[name], dtype=np.float64)
        return FloatDistribution(numbers.min(), numbers.max(), log=name == "lr")

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    distributions = {name: distribution(name) for name in values}
    for index, value in enumerate(loss):
        params = {name: column[index] for name, column in values.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(value)))
    found: dict[str, float] = PedAnovaImportanceEvaluator(target_quantile=best, region_quantile=region).evaluate(study)
    return found


@pytest.mark.parametrize(("n", "best", "region"), [(30, 0.25, 1.0), (100, 0.1, 1.0), (200, 0.1, 0.5), (61, 0.25, 0.6)])
@pytest.mark.parametrize("digits", [1, 12])
def test_of_numbers_it_is_optunas(n: int, best: float, region: float, digits: int) -> None:
    """With one digit many trials tie, at the cutoff too. The two differ in the order of their arithmetic alone."""
    x, lr, _, loss = draw(n, n)
    loss = np.round(loss, digits)
    theirs = optunas({"x": x, "lr": lr}, loss, best, region)
    cells = {"x": number_cells(x, log=False), "lr": number_cells(lr, log=True)}
    assert {name: local_importance(c, loss, best, region) for name, c in cells.items()} == pytest.approx(
        theirs, rel=1e-9
    )
    assert min(theirs.values()) > 0


@pytest.mark.parametrize("choices", [2, 3, 4])
def test_of_categories_it_is_optunas_without_its_fixed_evenness(choices: int) -> None:
    """Where every choice was tried equally often, Optuna's density of the best is ours drawn towards even by a factor.

    Each of its K kernels (one per choice seen) gives every choice 1 / (K + 1) beside the 1 of its own, before it is
    divided by their sum, so deviations from even shrink by 1 + C / (K + 1), and the divergence by its square. Ours has
    no such factor: with a prior of one trial in either, that is all the difference.
    """
    names = [str(index % choices) for index in range(48)]
    loss = np.random.default_rng(choices).uniform(size=48) + 0.15 * np.array([int(name) for name in names])
    chosen = {name for name, kept in zip(names, among_best(loss, 24), strict=True) if kept}
    assert len(chosen) == choices, "every choice is among the best, so K = C"
    theirs = optunas({"kind": names}, loss, 0.5, 1.0)["kind"]
    shrunk = 1 + choices / (choices + 1)
    assert local_importance(category_cells(names), loss, 0.5, 1.0) == pytest.approx(theirs * shrunk**2, rel=1e-9)


def test_only_the_order_of_the_objective_counts() -> None:
    x, _, _, loss = draw(3, 60)
    cells = number_cells(x, log=False)
    told = importance(cells, loss)
    assert importance(cells, np.exp(3 * loss) - 7) == told
    assert importance(cells, np.argsort(np.argsort(loss))) == told
    assert importance(cells, -loss) != told


def test_the_names_of_categories_do_not_count_and_their_number_does() -> None:
    _, _, kind, loss = draw(4, 60)
    told = importance(category_cells(kind), loss)
    again = importance(category_cells([{"a": "z", "b": "m", "c": "k", "d": "a"}[name] for name in kind]), loss)
    merged = importance(category_cells(["a" if name == "b" else name for name in kind]), loss)
    assert told is not None
    assert again is not None
    assert merged is not None
    assert (again.share, again.error, again.chance) == pytest.approx((told.share, told.error, told.chance), rel=1e-9)
    assert merged.share != pytest.approx(told.share, rel=0.05)


def test_a_scale_moved_and_stretched_is_the_same_scale() -> None:
    x, lr, _, loss = draw(5, 60)
    told, log = importance(number_cells(x, log=False), loss), importance(number_cells(lr, log=True), loss)
    assert importance(number_cells(8 * x - 4, log=False), loss) == told
    assert importance(number_cells(np.log2(lr), log=False), loss) == log
    assert importance(number_cells(lr, log=False), loss) != log


def test_who_has_a_say_comes_first_and_who_has_none_is_not_told_from_chance() -> None:
    first, false_alarms, idle = 0, 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, other, kind = rng.uniform(size=40), rng.uniform(size=40), rng.choice(list("abc"), 40)
        loss = (x - 0.3) ** 2 + rng.normal(0, 0.02, 40)
        cells = (number_cells(x, log=False), number_cells(other, log=False), category_cells(kind))
        told = [importance(found, loss, seed) for found in cells]
        shares = [one.share for one in told if one is not None]
        first += shares[0] == max(shares) and told[0] is not None and told[0].told
        idle += shares[1:]
        false_alarms += sum(one.told for one in told[1:] if one is not None)
    assert first >= 58
    assert false_alarms <= 0.12 * 120, "one in twenty is chance's own"
    assert false_alarms >= 1, "a threshold that nothing passes would say nothing"
    assert float(np.median(idle)) < 0.03


def test_a_share_is_the_part_of_being_among_the_best_that_is_settled() -> None:
    """Exactly the variance of P(best | value) over q (1 - q), up to the smoothing, which 4,000 trials make small."""
    rng = np.random.default_rng(0)
    kind = np.array(["a"] * 1000 + ["b"] * 3000)
    settled = importance(category_cells(kind), np.where(kind == "a", 0.0, 1.0) + rng.uniform(0, 0.1, 4000))
    x = rng.uniform(size=4000)
    threshold = importance(number_cells(x, log=False), np.abs(x - 0.4))
    chances = {"a": 0.55, "b": 0.15}
    best = np.concatenate([np.arange(1000) < 550, np.arange(3000) < 450])  # a quarter of all
    partly = importance(category_cells(kind), np.where(best, 0.0, 1.0) + rng.uniform(0, 0.1, 4000))
    assert settled is not None
    assert partly is not None
    assert threshold is not None
    assert settled.share == pytest.approx(1.0, abs=0.01)
    assert 0.8 < threshold.share <= 1.0, "edges are smoothed"
    variance = 0.25 * (chances["a"] - 0.25) ** 2 + 0.75 * (chances["b"] - 0.25) ** 2
    assert partly.share == pytest.approx(variance / (0.25 * 0.75), rel=0.02)


def test_the_error_is_of_the_size_of_the_spread_between_searches() -> None:
    told = []
    for seed in range(40):
        x, _, _, loss = draw(seed, 60)
        told.append(importance(number_cells(x, log=False), loss, seed))
    shares = [one.share for one in told if one is not None]
    errors = [one.error for one in told if one is not None]
    assert len(shares) == 40
    assert 0.6 < np.mean(errors) / np.std(shares, ddof=1) < 1.8


def test_the_error_falls_with_trials() -> None:
    errors = []
    for n in (30, 120, 480):
        x, _, _, loss = draw(1, n)
        told = importance(number_cells(x, log=False), loss)
        assert told is not None
        errors.append(told.error)
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_below_the_threshold_nothing_is_said() -> None:
    x, _, _, loss = draw(6, MIN_TRIALS)
    cells = number_cells(x, log=False)
    told = importance(cells, loss)
    assert told is not None
    assert (told.n, told.best) == (MIN_TRIALS, IN_BEST)
    assert math.ceil(BEST * (MIN_TRIALS - 4)) < IN_BEST
    fewer = Cells(index=cells.index[1:], size=cells.size, ordered=True)
    assert importance(fewer, loss[1:]) is None


def test_where_most_tie_for_the_best_nothing_decides() -> None:
    cells = category_cells(["a", "b"] * 20)
    assert importance(cells, [0.0] * 21 + [1.0] * 19) is None
    told = importance(cells, [0.0] * 20 + [1.0] * 20)
    assert told is not None
    assert told.best == 20


def test_a_density_is_one() -> None:
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 3, (7, 50)).astype(np.float64)
    counts[0] = np.eye(50)[0] * 9  # all in the first step
    for ordered in (True, False):
        found = density(counts, ordered=ordered)
        assert found.sum(axis=1) == pytest.approx(np.ones(7))
        assert found.min() > 0
        assert np.argmax(found[0]) == 0
        assert density(counts[3:4], ordered=ordered)[0] == pytest.approx(found[3])


def test_among_the_best_are_all_that_tie() -> None:
    losses = np.array([[3.0, 1.0, 1.0, 2.0], [4.0, 3.0, 2.0, 1.0]])
    assert among_best(losses, 1).tolist() == [[False, True, True, False], [False, False, False, True]]
    assert among_best(losses, 3).tolist() == [[False, True, True, True], [False, True, True, True]]


def test_the_same_twice() -> None:
    x, _, _, loss = draw(7, 50)
    cells = number_cells(x, log=False)
    assert importance(cells, loss, 1) == importance(cells, loss, 1)
    assert importance(cells, loss, 1) != importance(cells, loss, 2)


def test_what_has_no_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        number_cells([0.0, 1.0], log=True)
    with pytest.raises(ValueError, match="one value"):
        number_cells([2.0, 2.0], log=False)
    with pytest.raises(ValueError, match=r"the best 0\.5 are no part of the best 0\.5"):
        local_importance(category_cells(["a", "b"]), [0.0, 1.0], 0.5, 0.5)
