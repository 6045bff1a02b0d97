"""Features batch by batch: the minibatch estimator, and the exact one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from repsim.errors import DegenerateInputError
from repsim.similarity import CKAStream, ExactCKAStream, linear_cka
from repsim.similarity.minibatch import minibatch_cka

Matrix = NDArray[np.float64]


def pair(n: int, d: int = 64, seed: int = 0, mean: float = 1.0) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng([seed, n, d])
    x = rng.normal(size=(n, d)) * np.geomspace(3, 0.3, d) + mean * rng.normal(size=d)
    return x, x + 1.5 * rng.normal(size=(n, d)) + mean * rng.normal(size=d)


@pytest.mark.parametrize("batch", [8, 32, 128, 512])
def test_the_batch_size_hardly_matters_unless_batches_are_averaged_biased(batch: int) -> None:
    x, y = pair(2048)
    full = linear_cka(x, y)[0]
    assert minibatch_cka(x, y, batch=batch) == pytest.approx(full, abs=0.02 if batch == 8 else 0.01)
    wrong = np.mean([linear_cka(x[i : i + batch], y[i : i + batch])[1] for i in range(0, len(x), batch)])
    if batch <= 32:
        assert wrong > full + 0.05


def test_the_three_terms_are_averaged_separately() -> None:
    def hsic(a: Matrix, b: Matrix) -> float:
        """HSIC_1 as published."""
        n = len(a)
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        total = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float(total / (n * (n - 3)))

    x, y = pair(90, d=5)
    batches = [slice(0, 20), slice(20, 50), slice(50, 90)]
    stream = CKAStream()
    for rows in batches:
        stream.update(x[rows], y[rows])
    terms = np.array([[hsic(a[rows], b[rows]) for rows in batches] for a, b in ((x, y), (x, x), (y, y))])
    assert stream.sums == pytest.approx(terms.sum(axis=1), rel=1e-10)
    xy, xx, yy = terms.mean(axis=1)
    assert stream.compute() == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-12)
    assert stream.batches == 3
    one_by_one = np.mean(terms[0] / np.sqrt(terms[1] * terms[2]))
    assert abs(stream.compute() - one_by_one) > 1e-5


def test_one_batch_is_debiased_cka() -> None:
    x, y = pair(50)
    assert minibatch_cka(x, y, batch=64) == pytest.approx(linear_cka(x, y)[0], abs=1e-12)


@pytest.mark.parametrize("kind", [CKAStream, ExactCKAStream])
def test_states_of_two_processes_merge_into_the_single_pass(kind: type[CKAStream] | type[ExactCKAStream]) -> None:
    x, y = pair(600, d=20)
    batches = np.array_split(np.arange(600), 11)
    single, first, second, empty = kind(), kind(), kind(), kind()
    for number, rows in enumerate(batches):
        single.update(x[rows], y[rows])
        (first if number < 4 else second).update(x[rows], y[rows])
    first.merge(empty)  # type: ignore[arg-type]
    empty.merge(pickle.loads(pickle.dumps(first)))  # as it comes from another process
    empty.merge(second)  # type: ignore[arg-type]
    assert empty.compute() == pytest.approx(single.compute(), abs=1e-12)
    assert first.compute() != pytest.approx(single.compute(), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(4, 60),
    d_x=st.integers(1, 50),
    d_y=st.integers(1, 50),
    cuts=st.lists(st.integers(1, 59), max_size=5),
    mean=st.sampled_from([0.0, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_the_exact_stream_equals_all_rows_at_once(
    n: int, d_x: int, d_y: int, cuts: list[int], mean: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d_x)) + mean * rng.normal(size=d_x)
    y = rng.normal(size=(n, d_y)) + 0.5 * x[:, :1] + mean
    stream = ExactCKAStream()
    for rows in np.split(np.arange(n), sorted({cut for cut in cuts if cut < n})):
        stream.update(x[rows], y[rows])
    assert stream.rows == n
    for space in ("gram", "features"):
        assert stream.compute() == pytest.approx(linear_cka(x, y, space=space), abs=1e-8)


def test_the_exact_stream_is_exact_to_a_trillionth_and_single_precision_to_a_millionth() -> None:
    x, y = pair(500, d=40, mean=5.0)
    double, single = ExactCKAStream(), ExactCKAStream(arithmetic="float32")
    for rows in np.split(np.arange(500), [100, 101, 350]):
        double.update(x[rows], y[rows])
        single.update(x[rows], y[rows])
    assert double.compute() == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert single.compute() == pytest.approx(linear_cka(x, y), abs=1e-6)
    assert single.compute() != double.compute()


def test_the_minibatch_stream_in_single_precision() -> None:
    x, y = pair(400, d=300, mean=50.0)
    double, single = CKAStream(), CKAStream(arithmetic="float32")
    for rows in np.split(np.arange(400), 4):
        double.update(x[rows], y[rows])
        single.update(x[rows].astype(np.float32), y[rows].astype(np.float32))
    assert single.compute() == pytest.approx(double.compute(), abs=1e-5)  # the features themselves were rounded


def test_small_and_constant_batches_are_refused_and_leave_no_trace() -> None:
    x, y = pair(40, d=6)
    stream = CKAStream()
    stream.update(x, y)
    before = stream.compute()
    with pytest.raises(DegenerateInputError, match="needs at least 4 rows, not 3"):
        stream.update(x[:3], y[:3])
    with pytest.raises(DegenerateInputError, match="features are constant"):
        stream.update(x, np.ones_like(y))
    with pytest.raises(DegenerateInputError, match="features must be finite"):
        stream.update(x, np.full_like(y, np.nan))
    with pytest.raises(DegenerateInputError, match="their fourth powers overflow"):
        stream.update(1e90 * x, y)
    assert stream.compute() == before
    assert stream.batches == 1


def test_a_stream_without_variance_has_no_value() -> None:
    with pytest.raises(DegenerateInputError, match="no batch has been seen"):
        CKAStream().compute()
    stream = CKAStream()
    stream.update(np.eye(6), pair(6, d=6)[0])
    with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
        stream.compute()
    stream.update(*pair(30, d=6))
    assert 0 < stream.compute() <= 1


def test_what_the_exact_stream_refuses() -> None:
    x, y = pair(40, d=6)
    stream = ExactCKAStream()
    with pytest.raises(DegenerateInputError, match="needs at least 4 rows, not 0"):
        stream.compute()
    stream.update(x[:3], y[:3])
    with pytest.raises(DegenerateInputError, match="needs at least 4 rows, not 3"):
        stream.compute()
    with pytest.raises(DegenerateInputError, match=r"widths changed from \(6, 6\) to \(5, 6\)"):
        stream.update(x[:, :5], y)
    with pytest.raises(DegenerateInputError, match="features must be finite"):
        stream.update(x, np.full_like(y, np.inf))
    with pytest.raises(DegenerateInputError, match="their fourth powers overflow"):
        stream.update(1e90 * x, y)
    stream.update(x[3:], y[3:])
    assert stream.compute() == pytest.approx(linear_cka(x, y), abs=1e-12)

    constant = ExactCKAStream()
    for _ in range(3):
        constant.update(x, np.full_like(y, 0.1))
    with pytest.raises(DegenerateInputError, match="features are constant"):
        constant.compute()
    far = ExactCKAStream()
    far.update(np.eye(6)[:2], x[:2])
    far.update(np.eye(6)[2:], x[2:6])
    with pytest.raises(DegenerateInputError, match="all rows are equally far apart"):
        far.compute()


def test_batches_too_small_to_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 8, not 4"):
        minibatch_cka(*pair(40), batch=4)
