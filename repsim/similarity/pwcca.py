"""PWCCA: canonical correlations, weighted by how much of X each canonical direction accounts for.

Morcos, Raghu and Bengio 2018, arXiv 1806.05759: sum_i a_i rho_i / sum_i a_i with a_i = sum_j |<h_i, x_j>|, h_i the
canonical vectors of X in image space (orthonormal) and x_j the centred columns of X. The weights depend on the columns
of X one by one, so that a rotation of X, unlike one of Y, changes the value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.canonical import RANK, principal
from repsim.similarity.inputs import centred, paired
from repsim.similarity.measure import Order, Paired


def pwcca(x: ArrayLike, y: ArrayLike) -> float:
    """Projection-weighted CCA of features (n, d_x) and (n, d_y), in [0, 1]; weights from ``x``, so not symmetric.

    Needs n > rank X + rank Y: with fewer rows some correlations are 1 by construction, and their directions, so the
    weights, arbitrary. Cost: a singular value decomposition of each side. Raises :class:`DegenerateInputError` then,
    and for constant features.
    """
    return prepare(x, y)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike) -> Paired:
    """:func:`pwcca` of ``x`` and reordered ``y``."""
    first, second = paired(x, y, least=4)
    first, second = centred(first), centred(second)
    (basis_x, _), (basis_y, _) = principal(first, RANK), principal(second, RANK)
    n, rank_x, rank_y = len(first), basis_x.shape[1], basis_y.shape[1]
    if rank_x + rank_y >= n:
        raise DegenerateInputError(f"PWCCA needs more than {rank_x} + {rank_y} rows (the ranks), not {n}")
    columns = basis_x.T @ first

    def value(order: Order) -> float:
        turns, correlations, _ = np.linalg.svd(basis_x.T @ basis_y[order], full_matrices=False)
        weights = np.abs(turns.T @ columns).sum(axis=1)
        return float(np.dot(weights, np.clip(correlations, 0.0, 1.0)) / weights.sum())

    return value
