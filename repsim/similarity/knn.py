"""Overlap of nearest neighbours: does an image keep its neighbours? (Huh et al. 2024, arXiv 2405.07987.)

The published measure first clamps every value at the 95 % quantile; that is left out here: it makes the overlap depend
on the choice of axes, which would blame a mere rotation, and pooled activations have no outliers that call for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import Matrix, paired
from repsim.similarity.measure import Order, Paired

Index = NDArray[np.intp]

_K = 10
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
    first, second = unit_rows(first), unit_rows(second)
    common = 0
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        common += int((_neighbours(first, rows, k) & _neighbours(second, rows, k)).sum())
    return common / (n * k)


def default_k(n: int) -> int:
    """10 neighbours, fewer below 21 rows, where 10 of them would be most of the others."""
    return min(_K, (n - 1) // 2)


def default_overlap(x: ArrayLike, y: ArrayLike) -> float:
    """:func:`knn_overlap` with :func:`default_k` neighbours; n >= 4."""
    first, second = paired(x, y, least=4)
    return knn_overlap(first, second, k=default_k(len(first)))


def prepare(x: ArrayLike, y: ArrayLike) -> Paired:
    """:func:`default_overlap` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    k = default_k(len(first))
    near_x, near_y = [nearest_neighbours(unit_rows(side), k) for side in (first, second)]
    return lambda order: float(common_neighbours(near_x, relabelled(near_y, order)).sum()) / near_x.size


def nearest_neighbours(unit: Matrix, k: int) -> Index:
    """Indices (n, k) of each row's k nearest neighbours among rows of length 1, in no order."""
    blocks = [slice(start, min(start + _ROWS, len(unit))) for start in range(0, len(unit), _ROWS)]
    return np.concatenate([_nearest(unit, rows, k) for rows in blocks])


def relabelled(nearest: Index, order: Order) -> Index:
    """The neighbours (n, k) of reordered rows, under their new numbers."""
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    renamed: Index = number[nearest[order]]
    return renamed


def common_neighbours(one: Index, other: Index) -> NDArray[np.bool_]:
    """(n, k, k): whether neighbour a of row i in ``one`` is neighbour b in ``other``."""
    same: NDArray[np.bool_] = one[:, :, None] == other[:, None, :]
    return same


def unit_rows(features: Matrix) -> Matrix:
    """Rows of length 1; a row of zeros stays. :class:`DegenerateInputError` when all rows are equal."""
    if (features == features[0]).all():
        raise DegenerateInputError("features are constant: every row is the same")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Matrix = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    return unit


def _neighbours(unit: Matrix, rows: slice, k: int) -> NDArray[np.bool_]:
    """Membership (rows, n) of each row's k nearest neighbours."""
    nearest = _nearest(unit, rows, k)
    members = np.zeros((len(nearest), len(unit)), dtype=np.bool_)
    np.put_along_axis(members, nearest, True, axis=1)
    return members


def _nearest(unit: Matrix, rows: slice, k: int) -> Index:
    distance = -(unit[rows] @ unit.T)
    own = np.arange(len(distance))
    distance[own, own + rows.start] = np.inf
    nearest: Index = np.argpartition(distance, k - 1, axis=1)[:, :k]
    return nearest
