"""Triplet agreement: of two images, is the same one nearer to a third on both sides?

The share of triplets (i; j, k) whose order of |x_i - x_j| and |x_i - x_k| equals that of |y_i - y_j| and |y_i - y_k|.
Similarity triplets as the supervision of a representation: Bobu et al. 2023, arXiv 2301.00810; here the pretrained
features are the teacher that orders them. For each i it is (1 + Kendall's tau) / 2 of its two lists of distances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.distances import squared_distances
from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.knn import Index, relabelled
from repsim.similarity.measure import Order, Paired, shuffled

_ALL = 300  # rows up to which every triplet is counted
_GAPS = 16
_ROUNDING = 1e-12


def triplet_agreement(x: ArrayLike, y: ArrayLike) -> float:
    """Share of triplets, in [0, 1], that features (n, d_x) and (n, d_y), n >= 4, order alike; 0.5 by chance.

    Invariant to rotation, isotropic scaling and shift. All n (n - 1) (n - 2) / 2 triplets for n <= 300; above, those
    whose j and k stand one of 16 evenly spread numbers of ranks apart (or that number short of all), as seen from i:
    ranks in X for one half of the count and in Y for the other. So the share is within about 0.001
    of that of all, and the rows' order does not matter, but for which of equally far rows comes first (0.003 where half
    of the rows are duplicates). Cost n^2 (d_x + d_y + 64), and (n, n) matrices. A tie agrees with a tie only.
    Raises :class:`DegenerateInputError` for constant features, and for rows that are all equally far apart.
    """
    return prepare(x, y)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike) -> Paired:
    """:func:`triplet_agreement` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    distances_x, distances_y = [_told_apart(squared_distances(centred(side))) for side in (first, second)]
    gaps = _gaps(len(first))
    others_x, near_x = _by_distance(distances_x)
    if len(first) <= _ALL:
        return lambda order: _agreement(near_x, others_x, shuffled(distances_y, order), gaps)
    others_y, near_y = _by_distance(distances_y)

    def value(order: Order) -> float:
        as_x = _agreement(near_x, others_x, shuffled(distances_y, order), gaps)
        as_y = _agreement(near_y[order], relabelled(others_y, order), distances_x, gaps)
        return (as_x + as_y) / 2.0

    return value


def _told_apart(distances: Matrix) -> Matrix:
    """``distances`` as they are; :class:`DegenerateInputError` when they order no triplet."""
    pairs = distances[np.triu_indices(len(distances), 1)]
    if np.ptp(pairs) <= _ROUNDING * pairs.max():
        raise DegenerateInputError("no triplet is ordered: all rows are equally far apart")
    return distances


def _gaps(n: int) -> list[int]:
    """How many ranks j and k are apart: g, and n - 1 - g, so that every gap stands for equally many pairs."""
    half = np.arange(1, (n - 1) // 2 + 1)
    if n > _ALL:
        half = half[((np.arange(_GAPS) + 0.5) * len(half) / _GAPS).astype(int)]
    return sorted({int(gap) for one in half for gap in (one, n - 1 - one)})


def _by_distance(distances: Matrix) -> tuple[Index, Matrix]:
    """The other rows (n, n - 1) in order of distance from each row, and those distances."""
    away = distances.copy()
    np.fill_diagonal(away, -1.0)  # sorts first, and is left out
    others = np.argsort(away, axis=1, kind="stable")[:, 1:]
    return others, np.take_along_axis(distances, others, axis=1)


def _agreement(near: Matrix, others: Index, distances: Matrix, gaps: list[int]) -> float:
    """Share of pairs of ``others`` some gap apart, ordered by ``near``, that ``distances`` order alike."""
    also = np.take_along_axis(distances, others, axis=1)
    agreeing = seen = 0
    for gap in gaps:
        less = near[:, :-gap] < near[:, gap:]
        less_also, more_also = also[:, :-gap] < also[:, gap:], also[:, :-gap] > also[:, gap:]
        agreeing += int(np.count_nonzero((less == less_also) & ~more_also))
        seen += less.size
    return agreeing / seen
