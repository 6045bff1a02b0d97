"""HSIC_1 of linear kernels, the unbiased Hilbert-Schmidt independence criterion (Song et al. 2012, JMLR 13, eq. 5).

    HSIC_1 = [ tr(K'L') + 1'K'1 1'L'1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K'L'1 ] / (n (n - 3))

K' and L' are the Gram matrices X X^T and Y Y^T with their diagonals set to zero. It does not change when X and Y are
centred, and for centred features every term is known without K': its row sums are minus the squared row norms
k_i = |x_i|^2, and tr(K'L') = |X^T Y|_F^2 - sum k_i l_i, so a (d_x, d_y) product and the norms are all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from repsim.similarity.inputs import Floats, Matrix, refuse_constant

Arithmetic = Literal["float64", "float32"]
"""In which precision matrix products are formed; everything before (centring) and after (sums) is float64."""

_CANCELLED = 1e-3  # a result this small beside its terms would show single precision's rounding


def unbiased(n: int, total: float, diagonal: float, traces: float) -> float:
    """n (n - 3) HSIC_1 from tr(KL), sum_i K_ii L_ii and tr(K) tr(L) of the Gram matrices of centred features."""
    return total - diagonal + traces / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * diagonal


def gram_products(x: Floats, y: Floats, arithmetic: Arithmetic = "float64") -> tuple[Matrix, Matrix]:
    """tr(KL), tr(KK), tr(LL), and n (n - 3) HSIC_1 of the same pairs, of centred ``x`` (n, d_x), ``y`` (n, d_y).

    Takes (n, n) Gram matrices or (d, d) products, whichever is cheaper. In float32 arithmetic the relative error of
    HSIC_1 stays near 1e-7; where terms cancel so far that it would not, float64 is used after all. Raises
    :class:`repsim.errors.DegenerateInputError` for constant features.
    """
    products = _products(_side(x, arithmetic), _side(y, arithmetic))
    if arithmetic == "float32" and (products[1][1:] < _CANCELLED * products[0][1:]).any():
        products = _products(_side(x, "float64"), _side(y, "float64"))
    return products


@dataclass(frozen=True)
class _Side:
    """Centred features of mean squared row norm 1 (single precision has a narrow range), once ``size`` is divided out.

    ``norms`` (n,) are the squared norms before that, in float64.
    """

    rows: Floats
    norms: Matrix
    size: float


def _side(features: Floats, arithmetic: Arithmetic) -> _Side:
    shifted = features.astype(np.float64)  # one copy, changed in place: memory traffic is what remains to be saved
    mean: Matrix = shifted.mean(axis=0)
    shifted -= mean
    norms = np.einsum("ij,ij->i", shifted, shifted)
    refuse_constant(norms.sum(), len(features), mean)
    size = float(norms.mean())
    shifted *= 1.0 / np.sqrt(size)
    return _Side(shifted.astype(arithmetic, copy=False), norms, size)


def _products(x: _Side, y: _Side) -> tuple[Matrix, Matrix]:
    n, pairs = len(x.rows), ((x, y), (x, x), (y, y))
    diagonals = [float(np.dot(a.norms, b.norms)) for a, b in pairs]
    if n > x.rows.shape[1] + y.rows.shape[1]:
        crossed = [a.rows.T @ b.rows for a, b in pairs]
        full = [_dot(c, c) * a.size * b.size for c, (a, b) in zip(crossed, pairs, strict=True)]
    else:
        k, m = _hollow_gram(x), _hollow_gram(y)
        sums = [_dot(k, m), _dot(k, k), _dot(m, m)]
        full = [s * a.size * b.size + d for s, d, (a, b) in zip(sums, diagonals, pairs, strict=True)]
    debiased = [
        unbiased(n, total, diagonal, a.norms.sum() * b.norms.sum())
        for total, diagonal, (a, b) in zip(full, diagonals, pairs, strict=True)
    ]
    return np.array(full), np.array(debiased)


def _hollow_gram(side: _Side) -> Floats:
    """Without the diagonal: in wide features by far the larger part, it is added exactly, from the norms."""
    gram: Floats = side.rows @ side.rows.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _dot(a: Floats, b: Floats) -> float:
    """Sum of elementwise products: row by row in the matrices' precision, over the rows in float64."""
    return float(np.einsum("ij,ij->i", a, b).sum(dtype=np.float64))
