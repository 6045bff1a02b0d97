"""How much a parameter decides whether a trial is among the best: PED-ANOVA, for one objective at a time.

PED-ANOVA (Watanabe, Bansal, Hutter: PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces, IJCAI 2023, arXiv 2304.10255) compares where the best γ' of the trials lie along a parameter d with where the
best γ of them lie (γ = 1: all of them, wherever a sampler chose to look). Its local importance is

    v_d = (γ'/γ)² D_PE(p_d(· | γ') ‖ p_d(· | γ)),    D_PE(p ‖ q) = E_{x ~ q}[(p(x) / q(x) - 1)²],

with a one-dimensional Parzen estimate for each p_d. As p(x | γ') / p(x | γ) · γ'/γ is the probability that a trial of
the region with value x is among the best, v_d is the variance of that probability over x. The variance of being among
the best is q (1 - q) with q = γ'/γ, so

    share_d = v_d / (q (1 - q))

is the part of it that the parameter settles alone: 0 for one without a say, 1 for one that settles everything. Unlike
the v_d divided by their sum, it does not add up to 1 where nothing matters. What only combinations decide is in none.

Numbers are estimated as Optuna 5's PedAnovaImportanceEvaluator does it: on a grid of 50 steps over their range (of
their logarithm where that is their scale), with a truncated normal of Scott's bandwidth at each, and a prior of the
weight of one trial. Categories have their frequencies, with the same prior spread evenly over them. Optuna's estimate
of them keeps a fixed part of evenness however many trials there are, so that a choice that settles everything would
never have a share near 1, and a list would look less important than a range. Only ranks of the objective are used.

The standard error is the delete-d jackknife's (Shao and Wu: A general theory for jackknife variance estimation, Annals
of Statistics 17, 1989): sqrt(m / (n - m)) times the spread of the share over random subsets of m = 0.8 n trials. A
bootstrap would not do, for trials that are drawn twice lie in one place and make a density look sharper than it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

BEST = 0.25
"""γ': the best quarter. A smaller part asks for more trials than most sweeps have."""
IN_BEST = 5
"""Trials that a density of the best is made of at the least; fewer are a list of places, no density."""
MIN_TRIALS = math.ceil(IN_BEST / BEST)
"""Trials from which an importance is told: with fewer, the best quarter is less than five."""
STEPS = 50
RESAMPLES = 200
CHANCE = 0.95
KEPT = 0.8
_LEAST_SIGMA = 0.5 / 1.64  # 90 % of a normal lie in its own step of the grid
_FLOOR = 1e-12

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A parameter's value in each trial: ``index`` (n,) into ``size`` categories, or into steps of a grid."""

    index: Whole
    size: int
    ordered: bool


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A parameter's ``share`` in deciding who is among the best (0 to 1), from ``n`` trials, the best ``best`` of them.

    ``error`` is its standard error, ``chance`` the 95 % point of what it would be if as many trials, picked blindly,
    were the best: a share that is not above it says nothing.
    """

    share: float
    error: float
    chance: float
    n: int
    best: int

    @property
    def told(self) -> bool:
        """Whether the share is more than chance gives."""
        return self.share > self.chance * (1 + 1e-9)  # with few categories many pickings have the same share


def category_cells(values: Sequence[str]) -> Cells:
    """One cell per distinct value."""
    names = sorted(set(values))
    index = np.array([names.index(value) for value in values], dtype=np.int64)
    return Cells(index=index, size=len(names), ordered=False)


def number_cells(values: Sequence[float], *, log: bool) -> Cells:
    """A grid of 50 steps from the least to the greatest value; ValueError where they are equal, or no logarithm is."""
    numbers = np.asarray(values, dtype=np.float64)
    if log and numbers.min() <= 0:
        raise ValueError("the logarithm of a value that is not positive")
    scaled = np.log(numbers) if log else numbers
    low, high = float(scaled.min()), float(scaled.max())
    if not low < high:
        raise ValueError("a parameter with one value has no grid")
    index = np.ceil((scaled - low) / ((high - low) / (STEPS - 1)) - 0.5)  # a tie goes to the lower step
    return Cells(index=np.clip(index, 0, STEPS - 1).astype(np.int64), size=STEPS, ordered=True)


def among_best(losses: Floats, count: int) -> Flags:
    """Which of ``losses`` (..., n), lower is better, are the best ``count`` of their row, with all that tie."""
    cutoff = np.partition(losses, count - 1, axis=-1)[..., count - 1 : count]
    kept: Flags = losses <= cutoff
    return kept


def density(counts: Floats, *, ordered: bool) -> Floats:
    """Estimates of the cells' probabilities (rows, size) from counts (rows, size); every row has a trial."""
    if ordered:
        return _ordered_density(counts)
    found: Floats = (counts + 1.0 / counts.shape[1]) / (counts.sum(axis=1, keepdims=True) + 1.0)
    return found


def _ordered_density(counts: Floats) -> Floats:
    size = counts.shape[1]
    total = counts.sum(axis=1, keepdims=True)
    sigma = _scott(counts)[:, None]
    # Φ at the edges between steps, by distance from a kernel's centre
    edges = ndtr((np.arange(-size, size) + 0.5) / sigma)
    mass = np.diff(edges, axis=1)  # by distance 1 - size ... size - 1
    steps = np.arange(size)
    kernels = mass[:, steps[None, :] - steps[:, None] + size - 1]
    inside = edges[:, 2 * size - 1 - steps] - edges[:, size - 1 - steps]
    mixed = np.einsum("ri,rij->rj", counts / inside, kernels)
    prior = np.diff(ndtr((np.arange(size + 1) - size / 2) / size))
    found: Floats = (mixed + prior / prior.sum()) / (total + 1.0)
    return found


def _scott(counts: Floats) -> Floats:
    """Bandwidths (rows,) in steps: 1.059 min(IQR / 1.34, s) n^(-1/5), and no less than a step resolves."""
    steps = np.arange(counts.shape[1], dtype=np.float64)
    total = counts.sum(axis=1)
    mean = counts @ steps / total
    variance = (counts * (steps - mean[:, None]) ** 2).sum(axis=1) / np.maximum(1.0, total - 1.0)
    reached = np.cumsum(counts, axis=1)
    lower = np.argmax(reached >= np.maximum(total // 4, 1.0)[:, None], axis=1)
    upper = np.argmax(reached > (total * 3 // 4)[:, None], axis=1)
    sigma: Floats = 1.059 * np.minimum((upper - lower) / 1.34, np.sqrt(variance)) * total**-0.2
    return np.maximum(sigma, _LEAST_SIGMA)


def divergence(best: Floats, region: Floats) -> Floats:
    """D_PE (rows,) of densities (rows, size): E under ``region`` of (best / region - 1)²."""
    p, q = best + _FLOOR, region + _FLOOR
    found: Floats = (q * (p / q - 1.0) ** 2).sum(axis=1)
    return found


def local_importance(cells: Cells, losses: Sequence[float], best: float = BEST, region: float = 1.0) -> float:
    """v_d, the paper's local importance of reaching the best γ' = ``best`` within the best γ = ``region`` of trials.

    ``losses`` (n,), lower is better. ValueError unless 0 < γ' < γ <= 1.
    """
    if not 0.0 < best < region <= 1.0:
        raise ValueError(f"the best {best} are no part of the best {region}")
    values = np.asarray(losses, dtype=np.float64)
    inside, chosen = (among_best(values, math.ceil(part * len(values))) for part in (region, best))
    found = divergence(*(density(_counts(cells, kept[None, :]), ordered=cells.ordered) for kept in (chosen, inside)))
    return float((chosen.sum() / inside.sum()) ** 2 * found[0])


def importance(cells: Cells, losses: Sequence[float], seed: int = 0) -> Importance | None:
    """The share of ``cells``' parameter with its spread; ``losses`` (n,), lower is better.

    None below MIN_TRIALS, and where ties leave no best: more than half of the trials in it.
    """
    values = np.asarray(losses, dtype=np.float64)
    n = len(values)
    if n < MIN_TRIALS:
        return None
    chosen = among_best(values, math.ceil(BEST * n))
    best = int(chosen.sum())
    if best > n / 2:
        return None
    m = round(KEPT * n)
    picked, subset = _pickings(seed, n, best, m)
    share = _shares(cells, chosen[None, :], np.ones((1, n), dtype=np.bool_))
    chance = _shares(cells, picked, np.ones((RESAMPLES, n), dtype=np.bool_))
    spread = float(_shares(cells, _best_of(values, subset), subset).std(ddof=1))
    return Importance(
        share=float(share[0]),
        error=math.sqrt(m / (n - m)) * spread,
        chance=float(np.quantile(chance, CHANCE)),
        n=n,
        best=best,
    )


@lru_cache(maxsize=2)
def _pickings(seed: int, n: int, best: int, m: int) -> tuple[Flags, Flags]:
    """Random subsets of ``best`` and of ``m`` trials; settings that all trials have share them, and are many."""
    rng = np.random.default_rng(seed)
    return _picked(rng, n, best), _picked(rng, n, m)


def _picked(rng: np.random.Generator, n: int, size: int) -> Flags:
    """RESAMPLES random subsets (rows, n) of ``size`` trials each."""
    ranks = rng.permuted(np.tile(np.arange(n), (RESAMPLES, 1)), axis=1)
    kept: Flags = ranks < size
    return kept


def _best_of(losses: Floats, subset: Flags) -> Flags:
    """Which trials (rows, n) are among the best of each subset (rows, n), all of one size."""
    return among_best(np.where(subset, losses, np.inf), math.ceil(BEST * int(subset[0].sum())))


def _counts(cells: Cells, chosen: Flags) -> Floats:
    """How often each cell occurs (rows, size) among the trials chosen (rows, n)."""
    places = np.zeros((len(cells.index), cells.size))
    places[np.arange(len(cells.index)), cells.index] = 1.0
    found: Floats = chosen.astype(np.float64) @ places
    return found


def _shares(cells: Cells, best: Flags, region: Flags) -> Floats:
    """v_d / (q (1 - q)) for rows of trials (rows, n); 0 where everything is among the best."""
    p, r = (density(_counts(cells, chosen), ordered=cells.ordered) for chosen in (best, region))
    q = best.sum(axis=1) / region.sum(axis=1)
    odds = np.divide(q, 1.0 - q, out=np.zeros_like(q), where=q < 1.0)
    found: Floats = np.minimum(divergence(p, r) * odds, 1.0)
    return found
