"""A Gaussian process over the points of a space, conditions and all, and what a point is expected to add to a front.

Distances are taken key by key. Numbers count by where they lie between the lowest and the highest (0 to 1, in the
logarithm where the space says so), any other choice as equal or not, and a method as its adapter and its penalty, so
that what is learnt of ``repsim`` tells something of ``partial+repsim``. A number that a condition switches off counts
as the lowest: no penalty at all is like hardly any. The kernel is Matérn 5/2 with a length scale for each key
(Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", eq. 4.17); length scales and noise are the most
probable ones given the values (eq. 5.8, with the priors below).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from repsim.catalogue import parse_method
from sweeps.space import Choice, Domain, Space

Array = NDArray[np.float64]
Params = Mapping[str, object]

_SCALE, _SCALE_SPREAD = math.log(0.7), 0.7
"""Prior of a length scale's logarithm: mean and standard deviation. A key spans 1."""
_NOISE, _NOISE_SPREAD = math.log(0.05), 1.0
"""The same for the noise's variance, the values being standardised."""
_STEPS = 15
_JITTER = 1e-8


class Encoding:
    """Points of a space as rows of numbers. ``groups`` says for each column whose length scale it shares."""

    def __init__(self, space: Space) -> None:
        self._columns: list[Callable[[Params], float]] = []
        groups: list[int] = []
        for dimension in space.dimensions:
            for found in _columns(dimension.key, [branch.domain for branch in dimension.branches]):
                groups += [max(groups, default=-1) + 1] * len(found)
                self._columns += found
        self.groups = np.array(groups, dtype=np.int64)

    def rows(self, points: Sequence[Params]) -> Array:
        """``[points, columns]``."""
        return np.array([[column(point) for column in self._columns] for point in points])


def _columns(key: str, domains: Sequence[Domain]) -> list[list[Callable[[Params], float]]]:
    """Columns of a key, those that share a length scale together."""
    values: list[object] = []
    for domain in domains:
        values += domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
    if key == "method":
        methods = [parse_method(str(value)) for value in values]
        adapters = _nominal(key, [one.adapter for one in methods], lambda value: parse_method(str(value)).adapter)
        penalties = _nominal(key, [one.penalty for one in methods], lambda value: parse_method(str(value)).penalty)
        return [columns for columns in (adapters, penalties) if columns]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        columns = _nominal(key, values, lambda value: value)
        return [columns] if columns else []
    low, high = min(numbers), max(numbers)
    if low == high:
        return []
    log = low > 0 and all(isinstance(domain, Choice) or domain.log for domain in domains)
    return [[_scaled(key, low, high, log)]]


def _nominal(key: str, values: Sequence[object], part: Callable[[object], object]) -> list[Callable[[Params], float]]:
    """A column per value, 0 or √½, so that different ones are 1 apart; none where there is nothing to tell apart."""
    distinct = list(dict.fromkeys(map(repr, values)))

    def column(wanted: str) -> Callable[[Params], float]:
        return lambda point: math.sqrt(0.5) if repr(part(point[key])) == wanted else 0.0

    return [column(value) for value in distinct] if len(distinct) > 1 else []


def _scaled(key: str, low: float, high: float, log: bool) -> Callable[[Params], float]:
    def column(point: Params) -> float:
        value = point.get(key)
        if value is None:
            return 0.0
        number = float(str(value))
        return math.log(number / low) / math.log(high / low) if log else (number - low) / (high - low)

    return column


@dataclass(frozen=True)
class _Parameters:
    """Centre and unit by which the values are standardised; logarithms of length scales and of the noise's variance."""

    centre: float
    unit: float
    scales: Array
    noise: float


class Surrogate:
    """One quantity over the space: fitted to noisy values, it gives mean and standard deviation anywhere.

    ``doubt`` multiplies the noise's variance, value by value: a guess counts for less than a measurement.
    """

    def __init__(
        self,
        rows: Array,
        values: Array,
        groups: NDArray[np.int64],
        doubt: Array | None = None,
        parameters: _Parameters | None = None,
    ) -> None:
        """``rows``: ``[points, columns]`` of an ``Encoding``. ``values``: ``[points]``. ``parameters``: else fitted."""
        self._rows, self._values, self._groups = rows, values, groups
        self._doubt = np.ones(len(values)) if doubt is None else doubt
        self._found = self._fit() if parameters is None else parameters
        kernel = _kernel(squared_distances(rows, rows, groups), self._found.scales)[0]
        self._factor = cholesky(kernel + self._noise(self._found.noise), lower=True)
        self._weights = cho_solve((self._factor, True), (values - self._found.centre) / self._found.unit)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the quantity itself, without noise, at each of these points."""
        cross = _kernel(squared_distances(rows, self._rows, self._groups), self._found.scales)[0]
        mean = cross @ self._weights
        explained = solve_triangular(self._factor, cross.T, lower=True)
        spread = np.sqrt(np.maximum(1.0 - (explained**2).sum(axis=0), 1e-12))
        return self._found.centre + self._found.unit * mean, self._found.unit * spread

    def believing(self, rows: Array) -> Surrogate:
        """As if these points had been measured, each with its mean: less is to be learnt near them."""
        if not len(rows):
            return self
        return Surrogate(
            np.vstack([self._rows, rows]),
            np.append(self._values, self.predict(rows)[0]),
            self._groups,
            np.append(self._doubt, np.ones(len(rows))),
            self._found,
        )

    def _noise(self, noise: float) -> Array:
        return np.diag(math.exp(noise) * self._doubt + _JITTER)

    def _fit(self) -> _Parameters:
        centre, unit = float(self._values.mean()), max(float(self._values.std()), 1e-6)
        targets = (self._values - centre) / unit
        squares = squared_distances(self._rows, self._rows, self._groups)
        scales = int(self._groups.max(initial=-1)) + 1
        start = np.append(np.full(scales, _SCALE), _NOISE)
        spread = np.append(np.full(scales, _SCALE_SPREAD), _NOISE_SPREAD)

        def objective(x: Array) -> tuple[float, Array]:
            loss, slope = self._likelihood(squares, targets, x)
            off = (x - start) / spread
            return loss + 0.5 * float(off @ off), slope + off / spread

        bounds = [(middle - 3 * width, middle + 3 * width) for middle, width in zip(start, spread, strict=True)]
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
        return _Parameters(centre=centre, unit=unit, scales=found.x[:-1], noise=float(found.x[-1]))

    def _likelihood(self, squares: Array, targets: Array, x: Array) -> tuple[float, Array]:
        """The negative logarithm of the marginal likelihood, and its gradient (Rasmussen & Williams 2006, eq. 5.9)."""
        kernel, slope = _kernel(squares, x[:-1])
        noise = math.exp(x[-1])
        factor = cholesky(kernel + self._noise(x[-1]), lower=True)
        weights = cho_solve((factor, True), targets)
        loss = 0.5 * float(targets @ weights) + float(np.log(np.diag(factor)).sum())
        inner = cho_solve((factor, True), np.eye(len(kernel))) - np.outer(weights, weights)
        weighted = inner * slope
        gradient = [
            -math.exp(-2 * scale) * float((weighted * part).sum()) for part, scale in zip(squares, x[:-1], strict=True)
        ]
        return loss, np.append(gradient, 0.5 * noise * float(np.diag(inner) @ self._doubt))


def squared_distances(a: Array, b: Array, groups: NDArray[np.int64]) -> Array:
    """``[length scales, a, b]``: squared distances, key by key."""
    found = np.zeros((int(groups.max(initial=-1)) + 1, len(a), len(b)))
    for column, group in enumerate(groups):
        found[group] += (a[:, column, np.newaxis] - b[:, column]) ** 2
    return found


def _kernel(squares: Array, scales: Array) -> tuple[Array, Array]:
    """Matérn 5/2, and its derivative by the squared distance."""
    square = np.tensordot(np.exp(-2 * scales), squares, axes=1)
    root = np.sqrt(5 * square)
    fading = np.exp(-root)
    return (1 + root + root**2 / 3) * fading, -5 / 6 * (1 + root) * fading


def expected_gain(
    mean: Array,
    spread: Array,
    front: Array,
    draws: int,
    rng: np.random.Generator,
    told: Callable[[Array], Array] = lambda modelled: modelled,
) -> Array:
    """What each candidate is expected to add to the hypervolume of ``front``, up to a common factor.

    ``mean``, ``spread``: ``[candidates, objectives]``, of the modelled quantities; ``told`` turns such rows into the
    objectives. ``front``: ``[points, objectives]``; the reference point is 0 and more is better. The hypervolume is the
    mean, over directions w drawn evenly from the positive part of the sphere, of max over the points of min over the
    objectives of (y / w)^objectives (Zhang & Golovin 2020, "Random Hypervolume Scalarizations for Provable
    Multi-Objective Black Box Optimization", lemma 5), so any number of objectives costs the same. Every draw takes one
    direction and one outcome of every candidate.
    """
    objectives = mean.shape[1]
    directions = np.abs(rng.standard_normal((draws, objectives)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    luck = rng.standard_normal((draws, objectives))

    def height(points: Array, w: Array) -> Array:
        found: Array = np.maximum(points / w, 0.0).min(axis=-1) ** objectives
        return found

    gains = np.zeros(len(mean))
    for w, z in zip(directions, luck, strict=True):
        best = height(front, w).max(initial=0.0)
        gains += np.maximum(height(told(mean + z * spread), w) - best, 0.0)
    return gains / draws
