"""Each measure against its published formula, written out another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from scipy.stats import kendalltau, spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from repsim.errors import DegenerateInputError
from repsim.similarity import knn_overlap, linear_cka
from repsim.similarity.cknna import cknna
from repsim.similarity.hsic import gram_products
from repsim.similarity.pwcca import pwcca
from repsim.similarity.rbf import rbf_cka
from repsim.similarity.ridge import ridge_r2
from repsim.similarity.rsa import rsa, rsa_euclidean
from repsim.similarity.shape import shape_angle
from repsim.similarity.svcca import svcca
from repsim.similarity.triplets import triplet_agreement

Matrix = NDArray[np.float64]

# The case of test_similarity.py, whose CKA, HSIC_1 and Procrustes values were computed from the published formulas.
X = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [0, 3]], dtype=np.float64)
Y = np.array([[1, 2], [2, 0], [3, 1], [0, 1], [1, 5]], dtype=np.float64)


def pair(n: int = 60, d_x: int = 7, d_y: int = 5, seed: int = 0) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng([seed, n, d_x, d_y])
    x = rng.normal(size=(n, d_x)) * np.geomspace(3, 0.3, d_x) + rng.normal(size=d_x)
    return x, x @ rng.normal(size=(d_x, d_y)) + 2.0 * rng.normal(size=(n, d_y))


def centred(features: Matrix) -> Matrix:
    shifted: Matrix = features - features.mean(axis=0)
    return shifted


def test_products_of_the_small_case() -> None:
    """n (n - 3) = 10 times HSIC_1(X, Y) = -2, HSIC_1(X, X) = 0.9, HSIC_1(Y, Y) = 6.2667."""
    _, debiased = gram_products(centred(X), centred(Y))
    assert debiased == pytest.approx([-20.0, 9.0, 62.666666667], abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 40), d_x=st.integers(1, 12), d_y=st.integers(1, 12), seed=st.integers(0, 99))
def test_gram_and_feature_space_agree(n: int, d_x: int, d_y: int, seed: int) -> None:
    """Columns of zeros change nothing but the space that is cheaper."""
    rng = np.random.default_rng(seed)
    x, y = centred(rng.normal(size=(n, d_x))), centred(rng.normal(size=(n, d_y)))
    wide = np.concatenate([x, np.zeros((n, 50))], axis=1)
    for one, other in zip(gram_products(x, y), gram_products(wide, y), strict=True):
        assert one == pytest.approx(other, rel=1e-10, abs=1e-10 * max(abs(one)))


@pytest.mark.parametrize(("n", "d"), [(300, 40), (100, 300), (4, 900)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_single_precision_products_are_right_to_a_millionth(n: int, d: int, offset: float) -> None:
    rng = np.random.default_rng(n)
    scale = np.geomspace(1, 1e4, d)
    x = (rng.normal(size=(n, d)) + offset) * scale
    y = x + rng.normal(size=(n, d)) * scale
    assert linear_cka(x, y, arithmetic="float32") == pytest.approx(linear_cka(x, y), abs=1e-6)
    assert linear_cka(1e30 * x, y, arithmetic="float32") == pytest.approx(linear_cka(x, y), abs=1e-6)
    if d > n > 4:
        assert linear_cka(x, y, arithmetic="float32") != linear_cka(x, y)


def test_single_precision_gives_way_where_terms_cancel() -> None:
    """Rows nearly equally far apart: HSIC_1 is a ten-thousandth of its terms."""
    rng = np.random.default_rng(0)
    x = np.eye(30) + 0.003 * rng.normal(size=(30, 30))
    y = x + 0.003 * rng.normal(size=(30, 30))
    assert linear_cka(x, y, arithmetic="float32") == pytest.approx(linear_cka(x, y), abs=1e-9)


@pytest.mark.parametrize("fraction", [0.2, 0.8])
def test_rbf_cka_is_the_published_formula(fraction: float) -> None:
    x, y = pair()
    n = len(x)
    h = np.eye(n) - 1.0 / n
    kernels = []
    for side in (x, y):
        sigma = fraction * np.median(pdist(side))
        kernels.append(np.exp(-cdist(side, side, "sqeuclidean") / (2 * sigma**2)))
    k, m = kernels
    biased = np.trace(k @ h @ m @ h) / np.sqrt(np.trace(k @ h @ k @ h) * np.trace(m @ h @ m @ h))
    assert rbf_cka(x, y, fraction=fraction, debiased=False) == pytest.approx(biased, abs=1e-10)

    def hsic(k: Matrix, m: Matrix) -> float:
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        return float(np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum())

    debiased = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert rbf_cka(x, y, fraction=fraction) == pytest.approx(debiased, abs=1e-10)


def test_rbf_cka_becomes_linear_cka_as_the_kernel_widens() -> None:
    x, y = pair()
    debiased, biased = linear_cka(x, y)
    assert rbf_cka(x, y, fraction=300) == pytest.approx(debiased, abs=1e-4)
    assert rbf_cka(x, y, fraction=300, debiased=False) == pytest.approx(biased, abs=1e-4)
    assert abs(rbf_cka(x, y, fraction=0.5) - debiased) > 0.02


def test_wide_features_fool_biased_rbf_cka_only() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 500)), rng.normal(size=(100, 500))
    assert rbf_cka(x, y, debiased=False) > 0.8
    assert abs(rbf_cka(x, y)) < 0.05


def test_rbf_cka_without_a_width_is_refused() -> None:
    x, y = pair(8)
    y[:7] = y[0]
    with pytest.raises(DegenerateInputError, match="half of the pairs of rows are equal"):
        rbf_cka(x, y)
    with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
        rbf_cka(np.eye(6), pair(6)[0])
    with pytest.raises(ValueError, match="fraction must be above 0, not 0"):
        rbf_cka(x, y, fraction=0)


def test_shape_angle_of_the_small_case() -> None:
    assert shape_angle(X, Y) == pytest.approx(np.arccos(0.6668859289), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_shape_angle_is_the_published_formula(alpha: float) -> None:
    shapes = []
    for side in pair():
        shifted = centred(side)
        shifted /= np.linalg.norm(shifted)
        lengths, turn = np.linalg.eigh(shifted.T @ shifted)
        whitening = turn @ np.diag(lengths**-0.5) @ turn.T
        found = shifted @ (alpha * np.eye(len(lengths)) + (1 - alpha) * whitening)
        shapes.append(np.pad(found, ((0, 0), (0, 7 - found.shape[1]))))
    a, b = shapes
    rotation, _ = scipy.linalg.orthogonal_procrustes(a, b)
    cosine = np.vdot(a @ rotation, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    assert shape_angle(*pair(), alpha=alpha) == pytest.approx(np.arccos(cosine), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 25),
    widths=st.tuples(*[st.integers(1, 30)] * 3),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_shape_angle_obeys_the_triangle_inequality(
    seed: int, n: int, widths: tuple[int, int, int], alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, widths[0]))
    third = rng.normal(size=(n, widths[2]))
    second = rng.normal(size=(n, widths[1])) * 0.3
    second[:, : min(widths)] += (
        first[:, : min(widths)] + third[:, : min(widths)]
    )  # between them: the inequality is tight
    a, b, c = [shape_angle(p, q, alpha=alpha) for p, q in ((first, second), (second, third), (first, third))]
    assert c <= a + b + 1e-7


def test_fully_whitened_shapes_and_plain_cca_do_not_see_an_invertible_map() -> None:
    x, y = pair()
    mixed = x @ np.random.default_rng(1).normal(size=(7, 7)) + 5.0
    assert shape_angle(mixed, y, alpha=0) == pytest.approx(shape_angle(x, y, alpha=0), abs=1e-9)
    assert svcca(mixed, y, variance=1) == pytest.approx(svcca(x, y, variance=1), abs=1e-9)
    assert abs(shape_angle(mixed, y) - shape_angle(x, y)) > 0.01
    assert abs(svcca(mixed, y, variance=0.9) - svcca(x, y, variance=0.9)) > 0.01
    with pytest.raises(ValueError, match="alpha must be from 0 to 1, not 2"):
        shape_angle(x, y, alpha=2)


@pytest.mark.parametrize("variance", [0.7, 0.99, 1.0])
def test_svcca_is_the_cosines_of_the_angles_between_subspaces(variance: float) -> None:
    x, y = pair()
    kept = [side if variance == 1 else PCA(variance, svd_solver="full").fit_transform(side) for side in (x, y)]
    if variance == 0.7:
        assert kept[0].shape[1] < 7
    angles = scipy.linalg.subspace_angles(centred(kept[0]), centred(kept[1]))
    assert svcca(x, y, variance=variance) == pytest.approx(np.cos(angles).mean(), abs=1e-10)
    with pytest.raises(ValueError, match="variance must be above 0 and at most 1, not 0"):
        svcca(x, y, variance=0)


def test_svcca_of_too_few_rows_is_1_for_anything() -> None:
    rng = np.random.default_rng(0)
    assert svcca(rng.normal(size=(20, 30)), rng.normal(size=(20, 30)), variance=1) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("widths", [(7, 5), (4, 6)])
def test_pwcca_is_the_published_weighted_mean(widths: tuple[int, int]) -> None:
    """Canonical directions from the generalised eigenproblem S_xy S_yy^-1 S_yx w = rho^2 S_xx w."""
    x, y = (centred(side) for side in pair(d_x=widths[0], d_y=widths[1]))
    cross = x.T @ y
    squares, directions = scipy.linalg.eigh(cross @ np.linalg.solve(y.T @ y, cross.T), x.T @ x)
    count = min(widths)
    vectors = (x @ directions)[:, -count:]
    vectors /= np.linalg.norm(vectors, axis=0)
    weights = np.abs(vectors.T @ x).sum(axis=1)
    expected = (weights * np.sqrt(squares[-count:])).sum() / weights.sum()
    assert pwcca(x, y) == pytest.approx(expected, abs=1e-10)


def test_pwcca_sees_an_invertible_map_of_x_but_not_of_y() -> None:
    x, y = pair()
    mix = np.random.default_rng(1).normal(size=(5, 5))
    assert pwcca(x, y @ mix) == pytest.approx(pwcca(x, y), abs=1e-9)
    assert abs(pwcca(x @ np.diag(np.geomspace(1, 100, 7)), y) - pwcca(x, y)) > 0.01
    with pytest.raises(DegenerateInputError, match=r"PWCCA needs more than 7 \+ 5 rows \(the ranks\), not 12"):
        pwcca(x[:12], y[:12])


@pytest.mark.parametrize(("distance", "metric"), [("correlation", "correlation"), ("euclidean", "euclidean")])
def test_rsa_is_spearmans_correlation_of_pairwise_distances(distance: str, metric: str) -> None:
    x, y = np.round(pair()[0], 1), pair()[1]
    x[3] = x[4]  # ties
    x[5] = x[6]
    # Rounded, because distances between coordinates of one decimal tie often, and in floating point only nearly.
    expected = spearmanr(np.round(pdist(x, metric), 9), np.round(pdist(y, metric), 9)).statistic
    assert rsa(x, y, distance=distance) == pytest.approx(expected, abs=1e-10)  # type: ignore[arg-type]
    if distance == "euclidean":
        assert rsa_euclidean(x, y) == rsa(x, y, distance="euclidean")


def test_rsa_without_differences_is_refused() -> None:
    x, y = pair(6)
    with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
        rsa_euclidean(np.eye(6), x)
    y[2] = 0.7
    with pytest.raises(DegenerateInputError, match="row 2 has no variance over its features"):
        rsa(x, y)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_cknna_is_the_published_sum(k: int) -> None:
    x, y = pair(40)

    def centred_cosines(side: Matrix) -> Matrix:
        unit = side / np.linalg.norm(side, axis=1, keepdims=True)
        cosines: Matrix = unit @ unit.T
        return cosines

    def neighbours(cosines: Matrix, i: int) -> set[int]:
        return set([int(j) for j in np.argsort(-cosines[i]) if j != i][:k])

    def align(a: Matrix, b: Matrix) -> float:
        total = 0.0
        for i in range(len(a)):
            for j in neighbours(a, i) & neighbours(b, i):
                total += (a[i, j] - a[i].mean()) * (b[i, j] - b[i].mean())
        return total

    a, b = centred_cosines(x), centred_cosines(y)
    assert cknna(x, y, k=k) == pytest.approx(align(a, b) / np.sqrt(align(a, a) * align(b, b)), abs=1e-10)


def test_cknna_is_refused_where_it_is_not_defined() -> None:
    x, y = pair(10)
    with pytest.raises(DegenerateInputError, match=r"needs 1 <= k < n, not k = 10 with n = 10"):
        cknna(x, y, k=10)
    alike = np.outer(np.linspace(1, 2, 10), np.ones(5))  # one direction: all cosines are 1
    for side in (alike, np.eye(10)):
        with pytest.raises(DegenerateInputError, match="all rows are equally near one another"):
            cknna(x, side)
    # two right angles, opposite: the cosine of a neighbour is 0, and so is each row's sum of cosines
    cosines = np.array([[1, 0, -0.5, -0.5], [0, 1, -0.5, -0.5], [-0.5, -0.5, 1, 0], [-0.5, -0.5, 0, 1]])
    values, vectors = np.linalg.eigh(cosines)
    opposite = vectors * np.sqrt(values.clip(0))
    with pytest.raises(DegenerateInputError, match="every neighbour is as near as the mean row"):
        cknna(x[:4], opposite, k=1)


def shares(cosines: Matrix, k: int) -> Matrix:
    """What the definition says: nearer rows count 1, those at the k-th place share what is left."""
    found = np.zeros_like(cosines)
    for i, row in enumerate(np.round(cosines, 9)):
        others = [j for j in range(len(row)) if j != i]
        last = sorted((row[j] for j in others), reverse=True)[k - 1]
        above, level = [j for j in others if row[j] > last], [j for j in others if row[j] == last]
        found[i, above] = 1.0
        found[i, level] = (k - len(above)) / len(level)
    return found


@pytest.mark.parametrize("k", [1, 4, 10])
def test_rows_equally_near_share_their_places(k: int) -> None:
    rng = np.random.default_rng(k)
    x, y = (rng.integers(-1, 2, size=(30, 3)).astype(np.float64) for _ in range(2))  # ties, duplicates, zeros
    assert not x.any(axis=1).all()
    units = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9) for side in (x, y)]
    cosines = [unit @ unit.T for unit in units]
    share_x, share_y = (shares(side, k) for side in cosines)
    assert not set(np.unique(share_x)) <= {0.0, 1.0}
    both = np.minimum(share_x, share_y)
    assert knn_overlap(x, y, k=k) == pytest.approx(both.sum() / (30 * k), abs=1e-12)
    assert knn_overlap(x, x, k=k) == pytest.approx(1.0, abs=1e-12)
    a, b = (side - side.mean(axis=1, keepdims=True) for side in cosines)
    expected = (both * a * b).sum() / np.sqrt((share_x * a * a).sum() * (share_y * b * b).sum())
    assert cknna(x, y, k=k) == pytest.approx(expected, abs=1e-10)
    assert cknna(x, x, k=k) == pytest.approx(1.0, abs=1e-10)


def test_one_tie_changes_a_published_value_little() -> None:
    """Lists of neighbours where nothing ties, and shares where something does, are one measure."""
    x, y = pair(200)
    tied = np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]])
    for measure in (cknna, knn_overlap):
        assert measure(*tied, k=10) == pytest.approx(measure(x, y, k=10), abs=0.01)


def test_triplet_agreement_counts_every_triplet() -> None:
    x, y = pair(12)
    a, b = cdist(x, x), cdist(y, y)
    agreeing = [
        (a[i, j] < a[i, k]) == (b[i, j] < b[i, k])
        for i in range(12)
        for j in range(12)
        for k in range(j)
        if i not in (j, k)
    ]
    assert len(agreeing) == 12 * 11 * 10 // 2
    assert triplet_agreement(x, y) == pytest.approx(np.mean(agreeing), abs=1e-12)


@pytest.mark.parametrize("n", [301, 302, 330])
def test_sampled_triplets_stand_for_all(n: int) -> None:
    """By Kendall's tau of each row's distances, (1 + tau) / 2."""
    x, y = pair(n)
    a, b = cdist(x, x), cdist(y, y)
    every = [kendalltau(np.delete(a[i], i), np.delete(b[i], i)).statistic for i in range(n)]
    assert triplet_agreement(x, y) == pytest.approx((1 + np.mean(every)) / 2, abs=1e-3)
    assert triplet_agreement(x, x) == 1.0
    assert triplet_agreement(x, y) == pytest.approx(triplet_agreement(y, x), abs=1e-12)


def test_triplets_that_nothing_orders_are_refused() -> None:
    x, _ = pair(6)
    for one, other in ((np.eye(6), x), (x, np.eye(6)), (np.eye(6), np.eye(6))):
        with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
            triplet_agreement(one, other)


def test_a_tie_agrees_with_a_tie_only() -> None:
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
    assert triplet_agreement(corners, corners) == 1.0
    stretched = corners * [1.0, 1.5]  # of 3 pairs per corner: the tie breaks, the two with the diagonal stay
    assert triplet_agreement(corners, stretched) == pytest.approx(2 / 3)
    assert triplet_agreement(stretched, corners) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("n", "d_y"), [(30, 5), (12, 40)])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_ridge_r2_is_the_error_on_rows_left_out_one_by_one(n: int, d_y: int, ridge: float) -> None:
    x, y = pair(n, 4, d_y)
    penalty = ridge * np.square(centred(y)).sum() / min(n - 1, d_y)
    off = around = 0.0
    for row in range(n):
        others = np.delete(np.arange(n), row)
        # The intercept is not penalised; the penalty is the one of all rows.
        shifted = y - y[others].mean(axis=0)
        means = x[others].mean(axis=0)
        fitted = Ridge(alpha=penalty, fit_intercept=False).fit(shifted[others], x[others] - means)
        off += np.square(x[row] - means - fitted.predict(shifted[[row]])[0]).sum()
        around += np.square(x[row] - means).sum()
    assert ridge_r2(x, y, ridge=ridge) == pytest.approx(1 - off / around, abs=1e-8)


def test_ridge_r2_of_unrelated_features_is_not_positive() -> None:
    rng = np.random.default_rng(0)
    assert ridge_r2(rng.normal(size=(60, 5)), rng.normal(size=(60, 30))) < 0
    x, _ = pair(60)
    assert ridge_r2(x, x @ rng.normal(size=(7, 7)), ridge=1e-6) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="ridge must be above 0, not 0"):
        ridge_r2(x, x, ridge=0)
