"""CKNNA: kernel alignment that looks at nearest neighbours only.

Huh et al. 2024, arXiv 2405.07987, appendix: with a(i, j) = 1 where j is among the k nearest neighbours of i on both
sides, Align(K, L) = sum_ij a(i, j) (K_ij - mean_l K_il) (L_ij - mean_l L_il), and CKNNA = Align(K, L) over the root of
Align(K, K) Align(L, L). K holds the cosines of the rows. The equation is taken as it stands; the authors' program puts
the masked kernels into HSIC_1 instead, where Align(K, K) may turn negative. As in :mod:`repsim.similarity.knn`, values
are not clamped at a quantile first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import Matrix, paired
from repsim.similarity.knn import (
    Index,
    common_neighbours,
    default_k,
    nearest_neighbours,
    neighbour_shares,
    relabelled,
    unit_rows,
    untied,
)
from repsim.similarity.measure import Order, Paired, shuffled

_ROUNDING = 1e-24


def cknna(x: ArrayLike, y: ArrayLike, *, k: int | None = None) -> float:
    """CKNNA of features (n, d_x) and (n, d_y), n >= 4, in [-1, 1], with ``k`` neighbours (10, fewer below 21 rows).

    Invariant to rotation and scale, not to a shift. Cost n^2 (d_x + d_y) multiplications. Raises
    :class:`DegenerateInputError` unless 1 <= k < n, for constant features, for rows that are all equally near one
    another, or when every neighbour is as near as the mean row.
    """
    return prepare(x, y, k=k)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, k: int | None = None) -> Paired:
    """:func:`cknna` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    count = default_k(len(first)) if k is None else k
    if not 1 <= count < len(first):
        raise DegenerateInputError(f"needs 1 <= k < n, not k = {count} with n = {len(first)}")
    units = [unit_rows(side) for side in (first, second)]
    shares = [neighbour_shares(unit, count) for unit in units]
    if all(untied(share, count) for share in shares):
        return _of_lists(*(_nearest(unit, count) for unit in units))
    return _of_shares(*((share, _excess_of_all(unit, share)) for unit, share in zip(units, shares, strict=True)))


def _of_lists(x: tuple[Index, Matrix], y: tuple[Index, Matrix]) -> Paired:
    """From k neighbours and their excesses (n, k): where nothing ties, all that counts is in them."""
    (near_x, excess_x), (near_y, excess_y) = x, y

    def value(order: Order) -> float:
        common = common_neighbours(near_x, relabelled(near_y, order))
        align = (common * excess_x[:, :, None] * excess_y[order][:, None, :]).sum()
        return float(np.clip(align, -1.0, 1.0))

    return value


def _of_shares(x: tuple[Matrix, Matrix], y: tuple[Matrix, Matrix]) -> Paired:
    """From the shares and the excesses (n, n) of all rows."""
    (share_x, excess_x), (share_y, excess_y) = x, y

    def value(order: Order) -> float:
        align = np.vdot(np.minimum(share_x, shuffled(share_y, order)), excess_x * shuffled(excess_y, order))
        return float(np.clip(align, -1.0, 1.0))

    return value


def _nearest(unit: Matrix, k: int) -> tuple[Index, Matrix]:
    """Each row's k nearest neighbours, and by how much their cosines exceed the row's mean, over root Align(K, K)."""
    nearest = nearest_neighbours(unit, k)
    mean = unit.mean(axis=0)
    excess = np.stack([np.einsum("id,id->i", unit, unit[column] - mean) for column in nearest.T], axis=1)
    return nearest, excess / _root(np.square(excess).sum(), excess.size)


def _excess_of_all(unit: Matrix, share: Matrix) -> Matrix:
    """By how much the cosine of any two rows exceeds the first one's mean, over root Align(K, K)."""
    excess = unit @ (unit - unit.mean(axis=0)).T
    scaled: Matrix = excess / _root(np.vdot(share, np.square(excess)), float(share.sum()))
    return scaled


def _root(align: float, places: float) -> float:
    if align <= _ROUNDING * places:
        raise DegenerateInputError("CKNNA is not defined: every neighbour is as near as the mean row")
    return float(np.sqrt(align))
