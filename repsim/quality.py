"""How good features are by themselves: what neighbours know, and how many directions are in use. In float64.

None of these asks for the pretrained features: they describe one model's representation (n, d). The measures of rank
grow with n while n is not far above d, so compare them at equal n only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError
from repsim.similarity.inputs import centred

NEIGHBOURS = 20
TEMPERATURE = 0.07
FIRST_RANK, LAST_RANK = 4, 100
"""Ranks of the spectrum that the power law is fitted to: the first ones do not follow it."""
_LEAST_RANKS = 4
_ROUNDING = float(
    np.finfo(np.float32).eps
)  # models answer in fp32: smaller singular values, relative to the largest, are noise

Matrix = NDArray[np.float64]


def knn_accuracy(
    features: ArrayLike, labels: ArrayLike, bank: ArrayLike, bank_labels: ArrayLike, *, k: int = NEIGHBOURS
) -> float:
    """Share of ``features`` (n, d) whose ``k`` nearest neighbours in ``bank`` (m, d) vote for the right label.

    Neighbours by cosine; a vote weighs exp(cosine / 0.07) (the protocol of DINO, arXiv 2104.14294). A bank of fewer
    than k rows votes as a whole. Raises ValueError when shapes do not fit or k < 1, :class:`DegenerateInputError` when
    a value is not finite, a matrix is empty, or all rows of the bank are equal.
    """
    from sklearn.neighbors import KNeighborsClassifier  # here: it imports pandas, which most trials never need

    asked, known = _features(features), _features(bank)
    truth, votes = np.asarray(labels), np.asarray(bank_labels)
    if asked.shape[1] != known.shape[1] or truth.shape != asked.shape[:1] or votes.shape != known.shape[:1]:
        shapes = f"{asked.shape}, {truth.shape}, {known.shape} and {votes.shape}"
        raise ValueError(f"need features (n, d), labels (n,), bank (m, d) and bank labels (m,), not {shapes}")
    if k < 1:
        raise ValueError(f"needs k >= 1, not {k}")
    centred(known)
    voting = KNeighborsClassifier(min(k, len(known)), weights=_weights, algorithm="brute", metric="cosine")
    guesses = voting.fit(known, votes).predict(asked)
    return float(np.mean(guesses == truth))


def rankme(features: ArrayLike) -> float:
    """exp of the entropy of the singular values' shares of their sum, in [1, min(n, d)], for ``features`` (n, d).

    Garrido et al. 2023, arXiv 2210.02885: of the features as they are, not centred, so a large mean pulls it towards 1.
    Raises :class:`DegenerateInputError` when a value is not finite or all are 0.
    """
    return _spread(_singular_values(_features(features)))


def effective_rank(features: ArrayLike) -> float:
    """exp of the entropy of the covariance spectrum, in [1, min(n - 1, d)], for ``features`` (n, d).

    Roy & Vetterli 2007, of the covariance matrix: shares of variance, where RankMe takes shares of singular values.
    Raises :class:`DegenerateInputError` when a value is not finite or all rows are equal.
    """
    return _spread(_variances(features))


def alpha_req(features: ArrayLike) -> float:
    """α of the law λ_j ~ j^-α, fitted to the covariance spectrum of ``features`` (n, d); larger decays faster.

    Agrawal et al. 2022 (NeurIPS): values near 1 went with the best transfer. Weighted least squares of log λ on log j
    over ranks 4 … 100, weights 1 / j, as in the authors' code (the paper names no range). Ranks stop before the last
    one that is not 0, so with few images the fit sees fewer, and α is too large: the tail of a small sample falls
    faster. Raises :class:`DegenerateInputError` when a value is not finite, or when fewer than 4 ranks are left.
    """
    spectrum = _variances(features)
    ranks = np.arange(FIRST_RANK, min(LAST_RANK, len(spectrum)) + 1)
    if len(ranks) < _LEAST_RANKS:
        least = FIRST_RANK + _LEAST_RANKS - 1
        raise DegenerateInputError(f"needs a spectrum of at least {least} values, not {len(spectrum)}")
    slope = np.polyfit(np.log(ranks), np.log(spectrum[ranks - 1]), 1, w=1 / np.sqrt(ranks))[0]
    return float(-slope)


def _features(values: ArrayLike) -> Matrix:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"need a matrix (n, d), not {found.shape}")
    if found.size == 0:
        raise DegenerateInputError(f"there are no features in a matrix of shape {found.shape}")
    if not np.isfinite(found).all():
        raise DegenerateInputError("features must be finite")
    return found


def _weights(distances: Matrix) -> Matrix:
    """exp(cosine / T) up to a factor that all votes share."""
    weights: Matrix = np.exp(-distances / TEMPERATURE)
    return weights


def _singular_values(matrix: Matrix) -> Matrix:
    """Largest first."""
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)


def _variances(values: ArrayLike) -> Matrix:
    """Eigenvalues of the covariance matrix that are not rounding, largest first, up to a common factor."""
    singular = _singular_values(centred(_features(values)))
    kept: Matrix = singular[singular > _ROUNDING * singular[0]]
    return np.square(kept)


def _spread(spectrum: Matrix) -> float:
    """exp of the entropy of the shares; a share of 0 adds nothing."""
    total = spectrum.sum()
    if not total > 0:
        raise DegenerateInputError("all features are 0")
    shares = spectrum[spectrum > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))
