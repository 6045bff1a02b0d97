"""CKA with a Gaussian kernel: similarity of neighbourhoods rather than of the longest directions.

Kornblith et al. 2019, arXiv 1905.00414, section 3: K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2)) with sigma a fraction (0.2,
0.4 or 0.8) of the median distance; L from Y alike. Their CKA is the biased one. Here HSIC_1 is the default: in wide
features all distances are alike, K nears the identity, and the biased value nears 1 whatever the features are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.distances import squared_distances
from repsim.similarity.inputs import Matrix, centred, paired
from repsim.similarity.measure import Order, Paired, shuffled

_ROUNDING = 1e-12


def rbf_cka(x: ArrayLike, y: ArrayLike, *, fraction: float = 0.8, debiased: bool = True) -> float:
    """RBF CKA of features (n, d_x) and (n, d_y), n >= 4, in [-1, 1] debiased and in [0, 1] biased.

    ``fraction`` > 0 of the median distance is the kernel's width; as it grows the value goes to linear CKA's. Invariant
    to rotation, isotropic scaling and shift. Cost n^2 (d_x + d_y) multiplications and memory for a few (n, n) matrices.
    Raises :class:`DegenerateInputError` for constant features, more than half of the distances 0, or equal distances.
    """
    return prepare(x, y, fraction=fraction, debiased=debiased)(np.arange(len(np.asarray(x))))


def prepare(x: ArrayLike, y: ArrayLike, *, fraction: float = 0.8, debiased: bool = True) -> Paired:
    """:func:`rbf_cka` of ``x`` and reordered ``y``."""
    if fraction <= 0:
        raise ValueError(f"fraction must be above 0, not {fraction}")
    first, second = paired(x, y, least=4)
    kernel_x, kernel_y = [_unit(_kernel(side, fraction), debiased) for side in (first, second)]

    def value(order: Order) -> float:
        return float(np.clip(np.vdot(kernel_x, shuffled(kernel_y, order)), -1.0, 1.0))

    return value


def _kernel(features: Matrix, fraction: float) -> Matrix:
    squared = squared_distances(centred(features))
    median = np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)]))
    if median == 0:
        raise DegenerateInputError("RBF CKA is not defined: half of the pairs of rows are equal")
    kernel: Matrix = np.exp(-squared / (2.0 * (fraction * median) ** 2))
    return kernel


def _unit(kernel: Matrix, debiased: bool) -> Matrix:
    """The kernel centred (or U-centred, with a diagonal of zeros) and of Frobenius norm 1."""
    n = len(kernel)
    if debiased:
        np.fill_diagonal(kernel, 0.0)
    size = np.linalg.norm(kernel)
    means = kernel.sum(axis=1) / (n - 2 if debiased else n)
    means -= means.sum() / (2 * (n - 1) if debiased else 2 * n)
    centred_kernel: Matrix = kernel - means[:, None] - means[None, :]
    if debiased:
        np.fill_diagonal(centred_kernel, 0.0)
    norm = np.linalg.norm(centred_kernel)
    if norm <= np.sqrt(_ROUNDING) * size:
        raise DegenerateInputError("RBF CKA is not defined: all rows are equally far apart")
    centred_kernel /= norm
    return centred_kernel
