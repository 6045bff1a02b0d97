"""SVCCA: mean canonical correlation of the leading principal components.

Raghu et al. 2017, arXiv 1706.05806: centre, keep the fewest principal components that hold 99 % of the variance of
each side, and average the min(r_x, r_y) canonical correlations, which are the singular values of U_x^T U_y for
orthonormal bases U of the kept components. Means little unless n is several times r_x + r_y: with r_x + r_y >= n some
correlations are 1 by construction. Read it beside its null.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.similarity.canonical import leading
from repsim.similarity.inputs import centred, paired
from repsim.similarity.measure import Order, Paired


def svcca(x: ArrayLike, y: ArrayLike, *, variance: float = 0.99) -> float:
    """Mean canonical correlation of features (n, d_x) and (n, d_y), n >= 4, in [0, 1].

    ``variance`` in (0, 1] is the share of variance kept on each side; at 1 the value is that of plain CCA, invariant to
    every invertible map, below 1 it is invariant to rotation, isotropic scaling and shift. Cost: a singular value
    decomposition of each side. Raises :class:`DegenerateInputError` for fewer than 4 rows or constant features.
    """
    return prepare(x, y, variance=variance)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, variance: float = 0.99) -> Paired:
    """:func:`svcca` of ``x`` and reordered ``y``."""
    if not 0 < variance <= 1:
        raise ValueError(f"variance must be above 0 and at most 1, not {variance}")
    first, second = paired(x, y, least=4)
    basis_x, basis_y = [leading(centred(side), variance) for side in (first, second)]

    def value(order: Order) -> float:
        correlations = np.linalg.svd(basis_x.T @ basis_y[order], compute_uv=False)
        return float(np.clip(correlations, 0.0, 1.0).mean())

    return value
