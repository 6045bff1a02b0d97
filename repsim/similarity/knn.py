"""Overlap of nearest neighbours: does an image keep its neighbours? (Huh et al. 2024, arXiv 2405.07987.)

The published measure first clamps every value at the 95 % quantile; that is left out here: it makes the overlap depend
on the choice of axes, which would blame a mere rotation, and pooled activations have no outliers that call for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import Matrix, paired

_ROWS = 1024  # rows per block, so that memory grows with n and not with n squared


def knn_overlap(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Mean share of common ``k`` nearest neighbours (cosine, the row itself left out) of ``x`` and ``y``, in [0, 1].

    Invariant to rotation and scale, not to a shift. Unrelated features give k / (n - 1) on average. A row of zeros has
    cosine 0 with every other. Raises :class:`DegenerateInputError` unless 1 <= k < n, or when features are constant.
    """
    first, second = paired(x, y, least=2)
    n = len(first)
    if not 1 <= k < n:
        raise DegenerateInputError(f"needs 1 <= k < n, not k = {k} with n = {n}")
    first, second = _unit_rows(first), _unit_rows(second)
    common = 0
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        common += int((_neighbours(first, rows, k) & _neighbours(second, rows, k)).sum())
    return common / (n * k)


def _unit_rows(features: Matrix) -> Matrix:
    if (features == features[0]).all():
        raise DegenerateInputError("features are constant: every row is the same")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Matrix = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    return unit


def _neighbours(unit: Matrix, rows: slice, k: int) -> NDArray[np.bool_]:
    """Membership (rows, n) of each row's k nearest neighbours."""
    distance = -(unit[rows] @ unit.T)
    own = np.arange(len(distance))
    distance[own, own + rows.start] = np.inf
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    members = np.zeros(distance.shape, dtype=np.bool_)
    np.put_along_axis(members, nearest, True, axis=1)
    return members
