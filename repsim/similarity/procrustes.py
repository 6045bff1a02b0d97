"""Orthogonal Procrustes similarity: how well one set of features can be rotated onto the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.similarity.inputs import Matrix, centred, paired


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


def _core(x: Matrix, y: Matrix) -> Matrix:
    """A matrix with the non-zero singular values of ``x.T @ y`` and sides of at most n."""
    core: Matrix = _short(x) @ _short(y).T
    return core


def _short(features: Matrix) -> Matrix:
    """``features.T`` (d, n), rotated into its first n rows where d is larger."""
    n, d = features.shape
    return np.asarray(np.linalg.qr(features.T, mode="r")) if n < d else features.T
