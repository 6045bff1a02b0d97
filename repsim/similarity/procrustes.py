"""Orthogonal Procrustes similarity: how well one set of features can be rotated onto the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.measure import Order, Paired


def procrustes_similarity(x: ArrayLike, y: ArrayLike) -> float:
    """Nuclear norm of x_c^T y_c over the Frobenius norms, in [0, 1], for ``x`` (n, d_x) and ``y`` (n, d_y), n >= 4.

    1 when, and only when, the centred features are equal up to rotation and scale. Biased upwards, like biased CKA,
    when there are fewer rows than features. Raises :class:`DegenerateInputError` for fewer than 4 rows or constant
    features.
    """
    first, second = paired(x, y, least=4)
    first, second = centred(first), centred(second)
    first /= np.linalg.norm(first)
    second /= np.linalg.norm(second)
    singular_values = np.linalg.svd(_core(first, second), compute_uv=False)
    return float(min(singular_values.sum(), 1.0))


def prepare(x: ArrayLike, y: ArrayLike) -> Paired:
    """:func:`procrustes_similarity` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    shape_x, shape_y = [short(side / np.linalg.norm(side)) for side in (centred(first), centred(second))]

    def value(order: Order) -> float:
        return float(min(np.linalg.svd(shape_x @ shape_y[:, order].T, compute_uv=False).sum(), 1.0))

    return value


def _core(x: Matrix, y: Matrix) -> Matrix:
    """A matrix with the non-zero singular values of ``x.T @ y`` and sides of at most n."""
    core: Matrix = short(x) @ short(y).T
    return core


def short(features: Matrix) -> Matrix:
    """``features.T`` (d, n), rotated into its first n rows where d is larger."""
    n, d = features.shape
    return np.asarray(np.linalg.qr(features.T, mode="r")) if n < d else features.T
