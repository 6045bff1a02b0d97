"""Ridge R^2: how much of X can be read off Y by a linear map, on rows the map has not seen?

Held out one row at a time, in closed form: with H = Y_c (Y_c^T Y_c + lambda I)^-1 Y_c^T and an unpenalised intercept,
the error on row i of the map fitted without it is (x_i - xhat_i) / (1 - H_ii - 1/n) (PRESS; Allen 1974, Technometrics
16:125). R^2 = 1 - sum_i |error_i|^2 / sum_i |x_i - mean of the others|^2, over all columns of X together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.measure import Order, Paired


def ridge_r2(x: ArrayLike, y: ArrayLike, *, ridge: float = 0.1) -> float:
    """Held-out R^2 of ``x`` (n, d_x) predicted from ``y`` (n, d_y), n >= 4; at most 1, below 0 if worse than the mean.

    lambda is ``ridge`` > 0 times the mean of the min(n - 1, d_y) eigenvalues of Y_c Y_c^T. Not symmetric. Invariant to
    rotation, isotropic scaling and shift of either side; to an invertible map of Y only as ``ridge`` goes to 0. Cost: a
    solve with side min(n, d_y). Raises :class:`DegenerateInputError` for fewer than 4 rows or constant features.
    """
    return prepare(x, y, ridge=ridge)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, ridge: float = 0.1) -> Paired:
    """:func:`ridge_r2` of ``x`` and reordered ``y``."""
    if ridge <= 0:
        raise ValueError(f"ridge must be above 0, not {ridge}")
    first, second = paired(x, y, least=4)
    targets, inputs = centred(first), centred(second)
    n, d = inputs.shape
    penalty = ridge * np.square(inputs).sum() / min(n - 1, d)
    # H = left @ right, in the smaller of the two spaces.
    if n <= d:
        gram = inputs @ inputs.T
        left, right = np.eye(n), np.linalg.solve(gram + penalty * np.eye(n), gram)
    else:
        left, right = inputs, np.linalg.solve(inputs.T @ inputs + penalty * np.eye(d), inputs.T)
    own = np.einsum("ik,ki->i", left, right)
    kept: Matrix = 1.0 - own - 1.0 / n
    around = np.square(targets).sum() * (n / (n - 1)) ** 2

    def value(order: Order) -> float:
        # Row i of Y in its new order is row order[i] of the old one: the targets move the other way.
        moved = np.empty_like(targets)
        moved[order] = targets
        errors = (moved - left @ (right @ moved)) / kept[:, None]
        return float(1.0 - np.square(errors).sum() / around)

    return value
