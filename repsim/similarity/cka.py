"""Linear centred kernel alignment (CKA), biased and debiased, through Gram matrices or through covariances.

Biased: Kornblith et al. 2019, arXiv 1905.00414. Debiased: HSIC_1 of Song et al. 2012, the same as U-centred inner
products. With many more features than rows the biased form nears 1 even for unrelated features (0.96 for independent
Gaussians, n = 32, d = 768); the debiased one stays near 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import Matrix, centred, paired

Space = Literal["auto", "gram", "features"]

_ROUNDING = 1e-12  # a self-product below this share of the squared Gram matrix is rounding


def linear_cka(x: ArrayLike, y: ArrayLike, *, space: Space = "auto") -> tuple[float, float]:
    """Debiased and biased linear CKA of features ``x`` (n, d_x) and ``y`` (n, d_y), n >= 4, in float64.

    Debiased is in [-1, 1], biased in [0, 1]; both are 1 for features equal up to rotation, isotropic scaling and shift.
    ``space`` chooses between (n, n) Gram matrices and (d, d) covariances; ``auto`` takes the cheaper. Raises
    :class:`DegenerateInputError` for fewer than 4 rows, or features in which all rows are equal or equally far apart.
    """
    first, second = paired(x, y, least=4)
    first, second = centred(first), centred(second)
    if space == "auto":
        space = _cheaper(len(first), first.shape[1], second.shape[1])
    products = _gram_products if space == "gram" else _feature_products
    biased, debiased = products(first, second)
    floor = _ROUNDING * biased[1:]
    if (debiased[1:] <= floor).any():
        raise DegenerateInputError("debiased CKA is not defined: all rows are equally far apart")
    return _ratio(debiased), _ratio(biased)


def _cheaper(n: int, d_x: int, d_y: int) -> Space:
    return "gram" if n * (d_x + d_y) <= d_x * d_x + d_y * d_y + d_x * d_y else "features"


def _ratio(products: Matrix) -> float:
    xy, xx, yy = products
    return float(np.clip(xy / (np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0))


def _gram_products(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """Inner products (xy, xx, yy) of the Gram matrices of centred features: centred, and U-centred."""
    gram_x, gram_y = x @ x.T, y @ y.T
    biased = _inner_products(gram_x, gram_y)
    return biased, _inner_products(_u_centred(gram_x), _u_centred(gram_y))


def _inner_products(a: Matrix, b: Matrix) -> Matrix:
    return np.array([np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)])


def _u_centred(gram: Matrix) -> Matrix:
    n = len(gram)
    result = gram.copy()
    np.fill_diagonal(result, 0.0)
    means = result.sum(axis=1) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    result -= means[:, None]
    result -= means[None, :]
    np.fill_diagonal(result, 0.0)
    return result


def _feature_products(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """The same inner products without any (n, n) matrix: HSIC_1 written in covariances, times n (n - 3)."""
    n = len(x)
    biased = np.array([np.square(a.T @ b).sum() for a, b in ((x, y), (x, x), (y, y))])
    # Of the Gram matrix without its diagonal: the diagonal itself, and the row sums (centred rows add up to 0).
    diagonal = {0: np.square(x).sum(axis=1), 1: np.square(y).sum(axis=1)}
    debiased = []
    for total, (a, b) in zip(biased, ((0, 1), (0, 0), (1, 1)), strict=True):
        k, m = diagonal[a], diagonal[b]
        between_sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
        debiased.append(total - np.dot(k, m) + between_sums - 2.0 / (n - 2) * np.dot(k, m))
    return biased, np.array(debiased)
