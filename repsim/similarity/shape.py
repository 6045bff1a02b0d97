"""Angular shape distance: the angle between two sets of features, each turned as it fits best. A true metric.

Williams et al. 2021, arXiv 2110.14739: theta = min over orthogonal Q of arccos <phi(X), phi(Y) Q> / (|phi(X)| |phi(Y)|)
where phi centres and partly whitens, phi(X) = X_c (alpha I + (1 - alpha) (X_c^T X_c)^(-1/2)). Widths that differ are
padded with zeros. alpha = 1 leaves rotation, scale and shift free (the arc cosine of Procrustes similarity); alpha = 0
leaves every invertible map free (then it compares subspaces, as CCA does).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.similarity.canonical import RANK, principal
from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.measure import Order, Paired
from repsim.similarity.procrustes import short


def shape_angle(x: ArrayLike, y: ArrayLike, *, alpha: float = 1.0) -> float:
    """The angle in radians between features (n, d_x) and (n, d_y), n >= 4, in [0, pi/2]; 0 for equal shapes.

    ``alpha`` in [0, 1] is the share left unwhitened; features are brought to Frobenius norm 1 first, so that the share
    does not depend on their units. Satisfies the triangle inequality. Near 0 an angle is exact to about 1e-8. Cost: a
    singular value decomposition with sides of at most min(n, d). Raises :class:`DegenerateInputError` for fewer than 4
    rows or constant features.
    """
    return prepare(x, y, alpha=alpha)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, alpha: float = 1.0) -> Paired:
    """:func:`shape_angle` of ``x`` and reordered ``y``."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, not {alpha}")
    first, second = paired(x, y, least=4)
    shape_x, shape_y = _shape(first, alpha), _shape(second, alpha)

    def value(order: Order) -> float:
        cosine = np.linalg.svd(shape_x.T @ shape_y[order], compute_uv=False).sum()
        return float(np.arccos(min(cosine, 1.0)))

    return value


def _shape(features: Matrix, alpha: float) -> Matrix:
    """(n, at most min(n, d)), of Frobenius norm 1, up to a rotation of its columns."""
    shifted = centred(features)
    shifted /= np.linalg.norm(shifted)
    if alpha == 1:
        found = short(shifted).T
    else:
        directions, lengths = principal(shifted, RANK)
        found = directions * (alpha * lengths + (1.0 - alpha))
    whitened: Matrix = found / np.linalg.norm(found)
    return whitened
