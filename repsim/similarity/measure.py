"""What a similarity measure declares about itself, and the value it gives together with what is needed to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.similarity.inputs import Matrix, paired

Invariance = Literal["orthogonal", "isotropic_scale", "translation", "invertible_linear", "permutation"]
"""What may be done to the features without changing the value; each map of columns may hit either side alone.

``orthogonal``: X Q with Q orthogonal (a reordering of columns is one). ``isotropic_scale``: a X, a > 0.
``translation``: the same vector added to every row. ``invertible_linear``: X A with A invertible.
``permutation``: the rows of X and of Y put into one new order; it is the only one that moves both sides at once.
"""

Order = NDArray[np.intp]
Function = Callable[[ArrayLike, ArrayLike], float]
Paired = Callable[[Order], float]
Prepare = Callable[[ArrayLike, ArrayLike], Paired]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One way to compare features X (n, d_x) and Y (n, d_y) whose rows i describe the same image.

    ``estimator`` says in a few words which of the estimators in use this is, and its settings. ``range`` is (lowest,
    highest) possible value, ``identical`` the value of ``function(X, X)``, None where it depends on X.
    ``higher_is_closer`` is False for distances. ``function`` returns a finite float or raises
    :class:`repsim.errors.DegenerateInputError`; fewer than ``min_rows`` rows always do. ``prepare``, where given, does
    once what reorderings of Y's rows share: ``prepare(X, Y)(order)`` is ``function(X, Y[order])``.
    """

    name: str
    title: str
    estimator: str
    paper: str
    range: tuple[float, float]
    identical: float | None
    higher_is_closer: bool
    symmetric: bool
    invariances: frozenset[Invariance]
    min_rows: int
    function: Function
    prepare: Prepare | None = None

    def __call__(self, x: ArrayLike, y: ArrayLike) -> float:
        """The value for features ``x`` (n, d_x) and ``y`` (n, d_y)."""
        return self.function(x, y)

    def reordered(self, x: ArrayLike, y: ArrayLike) -> Paired:
        """A function of an order (n,) of ``y``'s rows that gives the value for ``x`` and ``y[order]``."""
        if self.prepare is not None:
            return self.prepare(x, y)
        first, second = paired(x, y, least=self.min_rows)
        return lambda order: self.function(first, second[order])


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """A value with what it takes to judge it: sample size, widths, estimator, and what unrelated rows would give.

    ``null_mean`` and ``null_sd`` (n - 1 in the denominator) are over ``shuffles`` random reorderings of Y's rows; both
    are None when none were asked for.
    """

    name: str
    value: float
    n: int
    d: tuple[int, int]
    estimator: str
    null_mean: float | None
    null_sd: float | None
    shuffles: int


def shuffled(square: Matrix, order: Order) -> Matrix:
    """Rows and columns of an (n, n) matrix in a new order: the Gram matrix of reordered rows."""
    moved: Matrix = square[np.ix_(order, order)]
    return moved
