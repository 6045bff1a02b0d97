"""Representational similarity analysis: do the same pairs of images look alike on both sides?

Kriegeskorte, Mur and Bandettini 2008, Frontiers in Systems Neuroscience 2:4: a dissimilarity for every pair of rows,
1 - Pearson correlation over the features, and Spearman's rank correlation of the two lists of n (n - 1) / 2 of them.
The correlation of two rows sees their features' common mean, so a rotation or a shift changes it; with Euclidean
distance, the other usual choice, neither does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.distances import squared_distances
from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.measure import Order, Paired, shuffled

Distance = Literal["correlation", "euclidean"]

_ROUNDING = 1e-12


def rsa(x: ArrayLike, y: ArrayLike, *, distance: Distance = "correlation") -> float:
    """Spearman correlation, in [-1, 1], of the pairwise dissimilarities of features (n, d_x) and (n, d_y), n >= 4.

    Cost n^2 (d_x + d_y) multiplications and sorting n^2 / 2 numbers twice. Raises :class:`DegenerateInputError` for
    constant features, for rows all equally far apart and, with "correlation", for a row whose features are all equal.
    """
    return prepare(x, y, distance=distance)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, distance: Distance = "correlation") -> Paired:
    """:func:`rsa` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    ranks_x, ranks_y = [_unit_ranks(_dissimilarities(side, distance)) for side in (first, second)]

    def value(order: Order) -> float:
        return float(np.clip(np.vdot(ranks_x, shuffled(ranks_y, order)), -1.0, 1.0))

    return value


def rsa_euclidean(x: ArrayLike, y: ArrayLike) -> float:
    """:func:`rsa` with Euclidean distances."""
    return rsa(x, y, distance="euclidean")


def prepare_euclidean(x: ArrayLike, y: ArrayLike) -> Paired:
    """:func:`rsa_euclidean` of ``x`` and reordered ``y``."""
    return prepare(x, y, distance="euclidean")


def _dissimilarities(features: Matrix, distance: Distance) -> Matrix:
    """(n, n), any increasing function of the distance: ranks are all that is used."""
    shifted = centred(features)
    if distance == "euclidean":
        return squared_distances(shifted)
    rows = features - features.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1)
    flat = np.flatnonzero(norms <= _ROUNDING * np.linalg.norm(features, axis=1))
    if len(flat) > 0:
        raise DegenerateInputError(f"row {flat[0]} has no variance over its features: no correlation is defined")
    rows /= norms[:, None]
    dissimilarities: Matrix = 1.0 - np.round(rows @ rows.T, 12)  # equal but for rounding: equal
    return dissimilarities


def _unit_ranks(square: Matrix) -> Matrix:
    """Centred ranks of the pairs as a symmetric (n, n) matrix with a diagonal of zeros and Frobenius norm 1."""
    upper = np.triu_indices(len(square), 1)
    pairs = square[upper]
    if np.ptp(pairs) <= _ROUNDING * np.abs(pairs).max(initial=0.0):
        raise DegenerateInputError("RSA is not defined: all rows are equally far apart")
    ranks = np.zeros_like(square)
    ranks[upper] = _ranks(pairs)
    ranks[upper] -= ranks[upper].mean()
    ranks += ranks.T
    unit: Matrix = ranks / np.linalg.norm(ranks)
    return unit


def _ranks(values: Matrix) -> Matrix:
    """Ranks from 1, ties sharing their mean."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2.0
    ranks: Matrix = means[group]
    return ranks
