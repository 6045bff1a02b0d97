"""A value travels with its sample size, its estimator and its null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import repsim.similarity
from repsim.errors import DegenerateInputError, RequestError
from repsim.similarity import REGISTRY, compare, similarity_metrics

Matrix = NDArray[np.float64]


def pair(n: int = 60, d: int = 6) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng([n, d])
    x = rng.normal(size=(n, d)) + rng.normal(size=d)
    return x, x + rng.normal(size=(n, d))


def test_every_value_says_what_it_was_measured_on() -> None:
    x, y = pair()
    found = compare(x, y[:, :4], REGISTRY)
    assert list(found) == list(REGISTRY)
    for name, similarity in found.items():
        assert similarity.name == name
        assert similarity.value == REGISTRY[name](x, y[:, :4])
        assert (similarity.n, similarity.d) == (60, (6, 4))
        assert similarity.estimator == REGISTRY[name].estimator
        assert similarity.shuffles == 20
        assert similarity.null_mean is not None
        assert similarity.null_sd is not None
        assert similarity.null_sd > 0
        away = (similarity.value - similarity.null_mean) / similarity.null_sd
        assert away > 4 if REGISTRY[name].higher_is_closer else away < -4


def test_the_headline_measures_equal_what_trials_report() -> None:
    x, y = pair()
    assert {name: found.value for name, found in compare(x, y, null=0).items()} == similarity_metrics(x, y)


def test_the_null_is_that_of_shuffled_rows_and_repeats() -> None:
    x, y = pair()
    found = compare(x, y, ["cka_biased"], seed=3, null=5)["cka_biased"]
    rng = np.random.default_rng(3)
    chance = [REGISTRY["cka_biased"](x, y[rng.permutation(60)]) for _ in range(5)]
    assert found.null_mean == pytest.approx(np.mean(chance), abs=1e-12)
    assert found.null_sd == pytest.approx(np.std(chance, ddof=1), abs=1e-12)
    assert compare(x, y, ["cka_biased"], seed=3, null=5)["cka_biased"] == found
    assert compare(x, y, ["cka_biased"], seed=4, null=5)["cka_biased"].null_mean != found.null_mean


def test_the_null_shows_what_the_biased_value_hides() -> None:
    rng = np.random.default_rng(0)
    found = compare(rng.normal(size=(32, 768)), rng.normal(size=(32, 768)))
    biased, debiased = found["cka_biased"], found["cka"]
    assert biased.value == pytest.approx(0.964, abs=0.01)  # independent Gaussians: the published bias
    assert biased.null_mean == pytest.approx(biased.value, abs=0.01)
    assert debiased.null_mean == pytest.approx(0, abs=0.02)


def test_without_a_null() -> None:
    found = compare(*pair(), ["rsa"], null=0)["rsa"]
    assert (found.null_mean, found.null_sd, found.shuffles) == (None, None, 0)
    for wrong in (1, -3):
        with pytest.raises(ValueError, match=f"null must be 0 or at least 2 shuffles, not {wrong}"):
            compare(*pair(), null=wrong)


def test_mistakes_are_named() -> None:
    x, y = pair()
    with pytest.raises(RequestError, match=r"'svca' is not a known measure; .*did you mean 'svcca'\?"):
        compare(x, y, ["cka", "svca"])
    with pytest.raises(DegenerateInputError, match="needs at least 4 rows, not 3"):
        compare(x[:3], y[:3])
    with pytest.raises(DegenerateInputError, match="pwcca: PWCCA needs more than"):
        compare(x[:9], y[:9], ["cka", "pwcca"])


def test_names_are_loaded_when_they_are_used() -> None:
    assert all(getattr(repsim.similarity, name) is not None for name in repsim.similarity.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        repsim.similarity.nothing  # noqa: B018
    assert math.isfinite(REGISTRY["cka"](*pair()))
