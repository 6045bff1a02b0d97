from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ortho_group

from repsim.errors import DegenerateInputError
from repsim.records import PER_SPLIT
from repsim.similarity import knn_overlap, linear_cka, procrustes_similarity, similarity_metrics

Matrix = NDArray[np.float64]
NAMES = ("cka", "cka_biased", "procrustes", "knn_overlap")

# A case small enough to follow by hand; the values below were computed from the published formulas.
X = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [0, 3]], dtype=np.float64)
Y = np.array([[1, 2], [2, 0], [3, 1], [0, 1], [1, 5]], dtype=np.float64)


def features(n: int = 60, d: int = 12, seed: int = 0) -> Matrix:
    """Correlated features with a mean, (n, d)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def related(x: Matrix, seed: int = 1, noise: float = 1.0) -> Matrix:
    """Features that share part of ``x``."""
    rng = np.random.default_rng(seed)
    return x + noise * x.std() * rng.normal(size=x.shape)


def rotation(d: int, seed: int = 2) -> Matrix:
    found: Matrix = ortho_group.rvs(d, random_state=seed)
    return found


@pytest.mark.parametrize("space", ["gram", "features", "auto"])
def test_cka_of_the_small_case(space: str) -> None:
    debiased, biased = linear_cka(X, Y, space=space)  # type: ignore[arg-type]
    assert biased == pytest.approx(0.4670915964, abs=1e-10)
    assert debiased == pytest.approx(-0.8421519211, abs=1e-10)


def test_procrustes_of_the_small_case_and_its_distance() -> None:
    similarity = procrustes_similarity(X, Y)
    assert similarity == pytest.approx(0.6668859289, abs=1e-10)
    a, b = X - X.mean(axis=0), Y - Y.mean(axis=0)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    distance = np.square(a).sum() + np.square(b).sum() - 2 * similarity * norms
    assert distance == pytest.approx(11.1561561671, abs=1e-9)
    u, _, v = np.linalg.svd(a.T @ b)
    assert np.square(a @ (u @ v) - b).sum() == pytest.approx(distance, abs=1e-9)


def test_debiased_cka_is_the_ratio_of_unbiased_hsic() -> None:
    def hsic(k: Matrix, m: Matrix) -> float:
        """HSIC_1 as published, entry by entry."""
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        total = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float(total / (n * (n - 3)))

    k, m = X @ X.T, Y @ Y.T
    assert [hsic(k, m), hsic(k, k), hsic(m, m)] == pytest.approx([-2.0, 0.9, 6.2666666667], abs=1e-9)
    assert linear_cka(X, Y)[0] == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), abs=1e-12)


# Independent Gaussian features, d = 768: the biased values are published-formula means for each n.
@pytest.mark.parametrize(("n", "biased"), [(8, 0.9875), (32, 0.964), (64, 0.920), (128, 0.854), (512, 0.601)])
def test_unrelated_features_fool_the_biased_measures_only(n: int, biased: float) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 768)), rng.normal(size=(n, 768))
    found = linear_cka(x, y)
    assert found[1] == pytest.approx(biased, abs=0.01)
    if n >= 16:
        assert abs(found[0]) < 0.1


@pytest.mark.parametrize(("n", "expected"), [(8, 0.997), (64, 0.978), (512, 0.834)])
def test_procrustes_is_biased_upwards_when_rows_are_few(n: int, expected: float) -> None:
    rng = np.random.default_rng(n)
    assert procrustes_similarity(rng.normal(size=(n, 768)), rng.normal(size=(n, 768))) == pytest.approx(
        expected, abs=0.005
    )


@pytest.mark.parametrize(("n", "d"), [(40, 300), (300, 40)])
def test_identical_features_are_exactly_similar(n: int, d: int) -> None:
    x = features(n, d)
    found = similarity_metrics(x, x)
    assert tuple(found) == NAMES
    assert set(found) <= set(PER_SPLIT)
    assert all(abs(value - 1.0) <= 1e-12 for value in found.values()), found


@pytest.mark.parametrize(("n", "d"), [(40, 100), (100, 20)])
def test_rotation_scale_and_shift_do_not_matter(n: int, d: int) -> None:
    x = features(n, d)
    moved = 2.5 * x @ rotation(d) + np.linspace(-3, 3, d)
    found = similarity_metrics(x, moved)
    assert abs(found["cka"] - 1) < 1e-12
    assert abs(found["cka_biased"] - 1) < 1e-12
    assert abs(found["procrustes"] - 1) < 1e-10
    assert knn_overlap(x, 2.5 * x @ rotation(d)) == 1.0
    assert knn_overlap(x, moved) < 1.0  # the cosine sees a shift


def test_a_general_invertible_map_does_matter() -> None:
    x = features(200, 10)
    stretched = x @ np.diag(np.geomspace(1, 1000, 10)) @ rotation(10)
    found = similarity_metrics(x, stretched)
    assert all(value < 0.95 for value in found.values()), found


def test_both_sides_reordered_alike_change_nothing_and_one_side_destroys_it() -> None:
    x = features(200, 10)
    y = related(x, noise=0.3)
    order = np.random.default_rng(3).permutation(len(x))
    straight, both, one = (
        similarity_metrics(x, y),
        similarity_metrics(x[order], y[order]),
        similarity_metrics(x, y[order]),
    )
    assert both == pytest.approx(straight, abs=1e-10)
    assert straight["cka"] > 0.8
    assert abs(one["cka"]) < 0.1
    assert one["procrustes"] < 0.5 * straight["procrustes"]
    assert one["knn_overlap"] < 0.15


def test_more_noise_is_less_similar() -> None:
    x = features(150, 30)
    found = [similarity_metrics(x, related(x, noise=noise)) for noise in (0.1, 0.5, 2.0)]
    for name in NAMES:
        values = [metrics[name] for metrics in found]
        assert values == sorted(values, reverse=True), name
        assert values[0] > values[-1] + 0.1


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 40),
    d_x=st.integers(1, 60),
    d_y=st.integers(1, 60),
    seed=st.integers(0, 99),
    shift=st.floats(0, 100),
)
def test_gram_matrices_and_covariances_agree(n: int, d_x: int, d_y: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d_x)) + shift, rng.normal(size=(n, d_y))
    gram, covariance = linear_cka(x, y, space="gram"), linear_cka(x, y, space="features")
    assert gram == pytest.approx(covariance, abs=1e-8)
    assert linear_cka(y, x) == pytest.approx(gram, abs=1e-8)
    similarity = procrustes_similarity(x, y)
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    plain = np.linalg.svd(a.T @ b, compute_uv=False).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
    assert similarity == pytest.approx(plain, abs=1e-10)
    assert 0 <= similarity <= 1
    assert 0 <= gram[1] <= 1
    assert -1 <= gram[0] <= 1


def test_neighbours_of_a_hand_made_case() -> None:
    angles = np.deg2rad([0.0, 10.0, 30.0, 60.0, 100.0])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Nearest by angle: 0-1, 1-0, 2-1, 3-2, 4-3. With the last two swapped: 3 becomes the far one.
    y = x[[0, 1, 2, 4, 3]] * np.array([[1.0], [5.0], [0.1], [2.0], [3.0]])
    # Nearest in y: 0-1, 1-0, 2-1, 3-4, 4-2, so three of five agree.
    assert knn_overlap(x, y, k=1) == pytest.approx(3 / 5)


def test_overlap_of_unrelated_features_is_chance_and_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2100, 8)), rng.normal(size=(2100, 8))
    assert knn_overlap(x, y) == pytest.approx(10 / 2099, abs=3e-3)
    mixed = np.concatenate([x[:1500], y[1500:]])
    cosine = [z @ z.T / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(z, axis=1)) for z in (x, mixed)]
    for similarities in cosine:
        np.fill_diagonal(similarities, -np.inf)
    nearest = [np.argsort(-similarities, axis=1)[:, :10] for similarities in cosine]
    plain = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
    assert knn_overlap(x, mixed) == pytest.approx(plain, abs=1e-12)


def test_a_row_of_zeros_has_neighbours_too() -> None:
    x = features(30, 5)
    x[3] = 0.0
    assert knn_overlap(x, x) == 1.0


def test_few_rows_compare_fewer_neighbours() -> None:
    x = features(6, 5)
    y = related(x)
    assert similarity_metrics(x, y)["knn_overlap"] == knn_overlap(x, y, k=2)
    x, y = features(21, 5), related(features(21, 5))
    assert similarity_metrics(x, y)["knn_overlap"] == knn_overlap(x, y, k=10)


MEASURES: list[Callable[[Matrix, Matrix], object]] = [linear_cka, procrustes_similarity, similarity_metrics]


@pytest.mark.parametrize("measure", MEASURES)
def test_fewer_than_four_rows_are_refused(measure: Callable[[Matrix, Matrix], object]) -> None:
    with pytest.raises(DegenerateInputError, match="needs at least 4 rows, not 3"):
        measure(X[:3], Y[:3])
    measure(X[:4], Y[:4])


@pytest.mark.parametrize("measure", [*MEASURES, knn_overlap])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_features_are_refused(measure: Callable[[Matrix, Matrix], object], value: float) -> None:
    x = features(50, 7)
    constant = np.full((50, 7), value)
    for pair in ((x, constant), (constant, x)):
        with pytest.raises(DegenerateInputError, match="features are constant"):
            measure(*pair)


@pytest.mark.parametrize("space", ["gram", "features"])
def test_rows_that_are_all_equally_far_apart_are_refused(space: str) -> None:
    with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
        linear_cka(np.eye(6), features(6, 6), space=space)  # type: ignore[arg-type]


@pytest.mark.parametrize("alike", [np.eye(6), np.arange(1.0, 7.0)[:, None] * [[1.0, 2.0]]], ids=["corners", "ray"])
def test_rows_that_are_all_equally_near_have_no_neighbours(alike: Matrix) -> None:
    for one, other in ((alike, features(6, 6)), (features(6, 6), alike), (alike, alike)):
        with pytest.raises(DegenerateInputError, match="all rows are equally near one another"):
            knn_overlap(one, other, k=2)


@pytest.mark.parametrize("measure", [*MEASURES, knn_overlap])
def test_shapes_and_values_are_checked(measure: Callable[[Matrix, Matrix], object]) -> None:
    x = features(20, 4)
    with pytest.raises(ValueError, match=r"equally many rows, not \(20, 4\) and \(19, 4\)"):
        measure(x, x[:19])
    with pytest.raises(ValueError, match=r"two matrices"):
        measure(x[0], x[0])
    spoilt = x.copy()
    spoilt[2, 1] = np.nan
    with pytest.raises(DegenerateInputError, match="features must be finite"):
        measure(x, spoilt)


@pytest.mark.parametrize("k", [0, 20, 21])
def test_impossible_neighbour_counts_are_refused(k: int) -> None:
    x = features(20, 4)
    with pytest.raises(DegenerateInputError, match=rf"needs 1 <= k < n, not k = {k} with n = 20"):
        knn_overlap(x, x, k=k)


def test_float32_input_is_measured_in_float64() -> None:
    x = features(50, 20).astype(np.float32)
    y = related(features(50, 20)).astype(np.float32)
    assert similarity_metrics(x, y) == similarity_metrics(x.astype(np.float64), y.astype(np.float64))


def test_the_four_together_take_milliseconds() -> None:
    x = features(200, 1280).astype(np.float32)
    y = related(features(200, 1280)).astype(np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        similarity_metrics(x, y)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2  # about 0.02 on one quiet core
