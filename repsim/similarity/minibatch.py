"""Minibatch linear CKA: for features that are too many to hold, or that come from several processes.

Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327, eq. 3: HSIC_1 of every batch, for (X, Y), (X, X) and (Y, Y), each
averaged over the batches *before* the ratio. HSIC_1 is unbiased, so the batch size hardly matters; averaging the CKA of
the batches instead does not give the CKA of the whole.

The state of :class:`CKAStream` is four numbers. Where (d_x + d_y)^2 numbers are not too many,
:class:`repsim.similarity.exact_stream.ExactCKAStream` gives the value of all rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.hsic import Arithmetic, gram_products
from repsim.similarity.inputs import Matrix, paired, same_rows

_ROUNDING = 1e-12  # a self-product below this share of the squared Gram matrix is rounding


def minibatch_cka(x: ArrayLike, y: ArrayLike, *, batch: int = 64) -> float:
    """Minibatch CKA of features (n, d_x) and (n, d_y), in [-1, 1]: about ``batch`` >= 8 rows at a time, in order.

    Rows are cut into equally large batches (to within one row). Invariant as linear CKA is, but for the order of rows.
    Cost n batch (d_x + d_y) multiplications. Raises :class:`DegenerateInputError` as :class:`CKAStream` does.
    """
    if batch < 8:
        raise ValueError(f"batch must be at least 8, not {batch}")
    first, second = paired(x, y, least=4)
    stream = CKAStream()
    for rows in np.array_split(np.arange(len(first)), -(-len(first) // batch)):
        stream.update(first[rows], second[rows])
    return stream.compute()


@dataclass
class CKAStream:
    """Minibatch CKA batch by batch. ``sums`` holds HSIC_1 of (X, Y), (X, X), (Y, Y) added up over ``batches`` batches.

    The states of several processes add up: :meth:`merge`, or a sum of ``sums`` and ``batches`` over the processes.
    ``arithmetic`` "float32" forms the products in single precision (:func:`repsim.similarity.hsic.gram_products`).
    """

    arithmetic: Arithmetic = "float64"
    sums: Matrix = field(default_factory=lambda: np.zeros(3))
    batches: int = 0

    def update(self, x: ArrayLike, y: ArrayLike) -> None:
        """Add a batch (b, d_x), (b, d_y); b may differ between batches, widths too.

        Raises :class:`DegenerateInputError`, and leaves the state as it was, for fewer than 4 rows, rows that are all
        equal, values that are not finite or whose fourth powers overflow.
        """
        first, second = same_rows(x, y, least=4)
        n = len(first)
        with np.errstate(over="ignore", invalid="ignore"):
            biased, debiased = gram_products(first, second, self.arithmetic)
        if not np.isfinite(debiased).all():
            raise DegenerateInputError("features are too large: their fourth powers overflow")
        # Rows that are all equally far apart: what is left is rounding, of either sign.
        debiased[1:][debiased[1:] <= _ROUNDING * biased[1:]] = 0.0
        self.sums += debiased / (n * (n - 3))
        self.batches += 1

    def merge(self, other: CKAStream) -> None:
        """Add what another stream has seen."""
        self.sums += other.sums
        self.batches += other.batches

    def compute(self) -> float:
        """The value so far, in [-1, 1]; :class:`DegenerateInputError` before the first batch or without variance."""
        if self.batches == 0:
            raise DegenerateInputError("no batch has been seen")
        xy, xx, yy = self.sums
        if xx <= 0 or yy <= 0:
            raise DegenerateInputError("debiased CKA is not defined: all rows are equally far apart")
        return float(np.clip(xy / (np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0))
