"""Overlap of nearest neighbours: does an image keep its neighbours? (Huh et al. 2024, arXiv 2405.07987.)

The published measure first clamps every value at the 95 % quantile; that is left out here: it makes the overlap depend
on the choice of axes, which would blame a mere rotation, and pooled activations have no outliers that call for it.

Rows that are equally near (cosines within 1e-12, as those to duplicates are) share the places that are left for them: m
rows for l places count l / m each, and what two sides have in common of a row is the smaller share. So the value knows
nothing of the rows' order, features overlap with themselves by 1, and where nothing ties it is the plain count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import Matrix, paired
from repsim.similarity.measure import Order, Paired, shuffled

Index = NDArray[np.intp]

_K = 10
_ROWS = 1024  # rows per block, so that memory grows with n and not with n squared
_TIE = 1e-12  # cosines no further apart differ by rounding


def knn_overlap(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Mean share of common ``k`` nearest neighbours (cosine, the row itself left out) of ``x`` and ``y``, in [0, 1].

    Invariant to rotation and scale, not to a shift. Unrelated features give k / (n - 1) on average. A row of zeros has
    cosine 0 with every other. Raises :class:`DegenerateInputError` unless 1 <= k < n, for constant features, and for
    rows that are all equally near one another.
    """
    first, second = paired(x, y, least=2)
    n = len(first)
    if not 1 <= k < n:
        raise DegenerateInputError(f"needs 1 <= k < n, not k = {k} with n = {n}")
    first, second = unit_rows(first), unit_rows(second)
    common = sum(float(np.minimum(_shares(first, rows, k), _shares(second, rows, k)).sum()) for rows in _blocks(n))
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
    units = [unit_rows(side) for side in (first, second)]
    places = len(first) * k
    share_x, share_y = [neighbour_shares(unit, k) for unit in units]
    if untied(share_x, k) and untied(share_y, k):
        near_x, near_y = [nearest_neighbours(unit, k) for unit in units]
        return lambda order: float(common_neighbours(near_x, relabelled(near_y, order)).sum()) / places
    return lambda order: float(np.minimum(share_x, shuffled(share_y, order)).sum()) / places


def neighbour_shares(unit: Matrix, k: int) -> Matrix:
    """(n, n): the share of row j among the k nearest neighbours of row i, in [0, 1], of rows of length 1."""
    return np.concatenate([_shares(unit, rows, k) for rows in _blocks(len(unit))])


def untied(shares: Matrix, k: int) -> bool:
    """Whether every row has k neighbours, each of them with a share of 1."""
    return int(np.count_nonzero(shares)) == k * len(shares)


def nearest_neighbours(unit: Matrix, k: int) -> Index:
    """Indices (n, k) of each row's k nearest neighbours among rows of length 1, in no order."""
    nearest = [np.argpartition(_distances(unit, rows), k - 1, axis=1)[:, :k] for rows in _blocks(len(unit))]
    return np.concatenate(nearest)


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
    """Rows of length 1; a row of zeros stays.

    :class:`DegenerateInputError` when all rows are equal, or equally near one another: then nobody is a neighbour.
    """
    if (features == features[0]).all():
        raise DegenerateInputError("features are constant: every row is the same")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Matrix = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    if all(np.ptp(np.delete(unit @ row, i)) <= _TIE for i, row in enumerate(unit)):  # the first row decides, as a rule
        raise DegenerateInputError("neighbours are not defined: all rows are equally near one another")
    return unit


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]


def _shares(unit: Matrix, rows: slice, k: int) -> Matrix:
    """(rows, n): 1 for those nearer than the k-th nearest, what is left of k divided among those as near as it."""
    distance = _distances(unit, rows)
    furthest = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    nearer, near = distance < furthest - _TIE, distance <= furthest + _TIE
    inside = nearer.sum(axis=1, keepdims=True)
    shares: Matrix = np.where(near, (k - inside) / (near.sum(axis=1, keepdims=True) - inside), 0.0)
    shares[nearer] = 1.0
    return shares


def _distances(unit: Matrix, rows: slice) -> Matrix:
    """(rows, n): minus the cosines; a row is infinitely far from itself."""
    distance: Matrix = -(unit[rows] @ unit.T)
    own = np.arange(len(distance))
    distance[own, own + rows.start] = np.inf
    return distance
