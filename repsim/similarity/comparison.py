"""Several measures at once, each value with its sample size, its estimator, and what unrelated rows would give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError, RequestError, unknown
from repsim.similarity.inputs import Matrix, paired
from repsim.similarity.measure import Measure, Order, Similarity
from repsim.similarity.registry import REGISTRY

HEADLINE = ("cka", "cka_biased", "procrustes", "knn_overlap")


def compare(
    x: ArrayLike, y: ArrayLike, names: Iterable[str] = HEADLINE, *, seed: int = 0, null: int = 20
) -> dict[str, Similarity]:
    """The named measures (``REGISTRY`` for all) of features ``x`` (n, d_x) and ``y`` (n, d_y), rows of both one image.

    The null: the rows of ``y`` are shuffled ``null`` times, the same shuffles for every measure, drawn from ``seed``;
    0 leaves it out. A value that its null reaches says nothing, however high it is. Work that shuffles share is done
    once, so the null costs little for measures on Gram matrices, and a decomposition per shuffle for those that need
    one. Raises :class:`RequestError` for an unknown name, ValueError for a ``null`` of 1 or below 0, and
    :class:`DegenerateInputError`, naming the measure, where one is not defined.
    """
    if null < 0 or null == 1:
        raise ValueError(f"null must be 0 or at least 2 shuffles, not {null}")
    wanted = list(names)
    mistakes = [unknown("compare", "names", name, list(REGISTRY), "measure") for name in wanted if name not in REGISTRY]
    if mistakes:
        raise RequestError(*mistakes)
    first, second = paired(x, y, least=4)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(first)) for _ in range(null)]
    return {name: _one(REGISTRY[name], first, second, orders) for name in wanted}


def _one(measure: Measure, x: Matrix, y: Matrix, orders: list[Order]) -> Similarity:
    try:
        value = measure(x, y)
        shuffled = measure.reordered(x, y) if orders else None
        chance = [] if shuffled is None else [shuffled(order) for order in orders]
    except DegenerateInputError as error:
        raise DegenerateInputError(f"{measure.name}: {error}") from error
    return Similarity(
        name=measure.name,
        value=value,
        n=len(x),
        d=(x.shape[1], y.shape[1]),
        estimator=measure.estimator,
        null_mean=float(np.mean(chance)) if chance else None,
        null_sd=float(np.std(chance, ddof=1)) if chance else None,
        shuffles=len(chance),
    )
