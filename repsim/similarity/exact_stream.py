"""Linear CKA of all rows, biased and debiased, in one pass that keeps no row, from moments up to the fourth.

With centred features HSIC_1 needs |X^T Y|_F^2, the traces, and sum_i |x_i|^2 |y_i|^2 (:mod:`repsim.similarity.hsic`).
The mean is known only at the end, so the sums are kept around the running mean and moved when it moves: the way of
Chan, Golub and LeVeque 1983 with second moments, carried on to the third and fourth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from repsim.errors import DegenerateInputError
from repsim.similarity.hsic import Arithmetic, unbiased
from repsim.similarity.inputs import Matrix, refuse_constant, same_rows

_ROUNDING = 1e-12  # a self-product below this share of the squared Gram matrix is rounding


@dataclass
class _Moments:
    """Sums over rows w = (x, y), centred at their mean, of what HSIC_1 needs.

    ``scatter`` (D, D): w w^T. ``cubic`` (2, D): |x|^2 w and |y|^2 w. ``quartic`` (2, 2): |x|^4, |x|^2 |y|^2, |y|^4.
    """

    n: int
    split: int
    mean: Matrix
    scatter: Matrix
    cubic: Matrix
    quartic: Matrix

    @property
    def parts(self) -> tuple[slice, slice]:
        return slice(0, self.split), slice(self.split, None)

    def traces(self) -> Matrix:
        diagonal = np.diagonal(self.scatter)
        return np.array([diagonal[part].sum() for part in self.parts])

    def around(self, centre: Matrix) -> _Moments:
        """The same sums around another centre: exact, because the first moments around the mean vanish."""
        move = self.mean - centre
        n, parts, traces = self.n, self.parts, self.traces()
        lengths = np.array([np.dot(move[part], move[part]) for part in parts])
        through = np.stack([move[part] @ self.scatter[part] for part in parts])
        cubic = self.cubic + traces[:, None] * move + 2.0 * through + n * lengths[:, None] * move
        quartic = self.quartic.copy()
        for a, b in np.ndindex(2, 2):
            quartic[a, b] += (
                2.0 * (self.cubic[a, parts[b]] @ move[parts[b]] + self.cubic[b, parts[a]] @ move[parts[a]])
                + lengths[b] * traces[a]
                + lengths[a] * traces[b]
                + 4.0 * through[a, parts[b]] @ move[parts[b]]
                + n * lengths[a] * lengths[b]
            )
        return _Moments(n, self.split, centre, self.scatter + n * np.outer(move, move), cubic, quartic)

    def plus(self, other: _Moments) -> _Moments:
        n = self.n + other.n
        centre = self.mean + (other.mean - self.mean) * (other.n / n)
        a, b = self.around(centre), other.around(centre)
        return _Moments(n, self.split, centre, a.scatter + b.scatter, a.cubic + b.cubic, a.quartic + b.quartic)


@dataclass
class ExactCKAStream:
    """What :func:`repsim.similarity.linear_cka` gives for all rows at once, batch by batch and process by process.

    State 8 (d_x + d_y)^2 bytes, cost n (d_x + d_y)^2 multiplications. ``arithmetic`` "float32" forms each batch's
    second moments in single precision: both values within 1e-6.
    """

    arithmetic: Arithmetic = "float64"
    _moments: _Moments | None = None

    @property
    def rows(self) -> int:
        """Rows seen."""
        return 0 if self._moments is None else self._moments.n

    def update(self, x: ArrayLike, y: ArrayLike) -> None:
        """Add a batch (b, d_x), (b, d_y), b >= 1. Raises :class:`DegenerateInputError` for values that are not finite
        or widths that differ from those before."""
        first, second = same_rows(x, y, least=1)
        with np.errstate(over="ignore", invalid="ignore"):
            new = _moments_of(first.astype(np.float64), second.astype(np.float64), self.arithmetic)
        self._add(new)

    def merge(self, other: ExactCKAStream) -> None:
        """Add what another stream has seen."""
        if other._moments is not None:
            self._add(other._moments)

    def _add(self, new: _Moments) -> None:
        if not np.isfinite(new.quartic).all():
            raise DegenerateInputError("features are too large: their fourth powers overflow")
        old = self._moments
        if old is not None and (old.split, len(old.mean)) != (new.split, len(new.mean)):
            widths = [(m.split, len(m.mean) - m.split) for m in (old, new)]
            raise DegenerateInputError(f"widths changed from {widths[0]} to {widths[1]}")
        self._moments = new if old is None else old.plus(new)

    def compute(self) -> tuple[float, float]:
        """Debiased and biased linear CKA, as :func:`repsim.similarity.linear_cka` orders them.

        Raises :class:`DegenerateInputError` for fewer than 4 rows, or rows all equal or equally far apart.
        """
        moments = self._moments
        if moments is None or moments.n < 4:
            raise DegenerateInputError(f"needs at least 4 rows, not {self.rows}")
        n, (x, y), traces = moments.n, moments.parts, moments.traces()
        for part, trace in zip((x, y), traces, strict=True):
            refuse_constant(trace, n, moments.mean[part])
        biased, debiased = np.empty(3), np.empty(3)
        for place, (a, b) in enumerate(((0, 1), (0, 0), (1, 1))):
            block = moments.scatter[moments.parts[a], moments.parts[b]]
            biased[place] = np.square(block).sum()
            debiased[place] = unbiased(n, biased[place], moments.quartic[a, b], traces[a] * traces[b])
        if (debiased[1:] <= _ROUNDING * biased[1:]).any():
            raise DegenerateInputError("debiased CKA is not defined: all rows are equally far apart")
        values = [np.clip(xy / (np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0) for xy, xx, yy in (debiased, biased)]
        return float(values[0]), float(values[1])


def _moments_of(x: Matrix, y: Matrix, arithmetic: Arithmetic) -> _Moments:
    rows = np.concatenate([x, y], axis=1)
    mean = rows.mean(axis=0)
    rows -= mean
    lengths = np.stack([np.square(rows[:, : x.shape[1]]).sum(axis=1), np.square(rows[:, x.shape[1] :]).sum(axis=1)])
    size = np.sqrt(lengths.mean())
    if arithmetic == "float32" and size > 0:
        single = (rows / size).astype(np.float32)
        scatter = (single.T @ single).astype(np.float64) * size**2
    else:
        scatter = rows.T @ rows
    return _Moments(len(rows), x.shape[1], mean, scatter, lengths @ rows, lengths @ lengths.T)
