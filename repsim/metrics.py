"""How good predictions are: accuracy, ranking and calibration, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

from repsim.errors import DegenerateInputError

ECE_BINS = 15

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


def classification_metrics(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """``accuracy``, ``balanced_accuracy``, ``auc``, ``nll`` (nats) and ``ece`` of ``logits`` (n, c), ``labels`` (n,).

    Labels are class numbers 0 … c-1. ``balanced_accuracy`` (mean recall) and ``auc`` (macro one-vs-rest) are means
    over the classes that occur in ``labels``; classes that do not occur still count as wrong answers. Raises
    ValueError when the shapes or labels do not fit, :class:`DegenerateInputError` when fewer than two classes occur or
    a logit is not finite.
    """
    scores, truth, present = _checked(logits, labels)
    log_probabilities: Matrix = log_softmax(scores, axis=1)
    right = scores.argmax(axis=1) == truth
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[truth == label].mean() for label in present])),
        "auc": float(np.mean([_auc(_log_odds(scores, label), truth == label) for label in present])),
        "nll": float(-log_probabilities[np.arange(len(truth)), truth].mean()),
        "ece": _calibration_error(np.exp(log_probabilities.max(axis=1)), right),
    }


def equal_mass_error(logits: ArrayLike, labels: ArrayLike) -> float:
    """Calibration error of ``logits`` (n, c) for ``labels`` (n,) over ECE_BINS bins of equally many images, in [0, 1].

    Nguyen & O'Connor 2015, arXiv 1508.05154. Images of equal confidence share their mean gap, so that their order does
    not decide which bin gets which. Inputs and errors as for :func:`classification_metrics`.
    """
    scores, truth, _ = _checked(logits, labels)
    confidence = np.exp(log_softmax(scores, axis=1).max(axis=1))
    _, group, size = np.unique(confidence, return_inverse=True, return_counts=True)
    gaps = np.bincount(group, weights=(scores.argmax(axis=1) == truth) - confidence) / size
    bins = np.array_split(gaps[np.sort(group)], min(ECE_BINS, len(truth)))
    return float(sum(abs(part.sum()) for part in bins) / len(truth))


def quadratic_kappa(logits: ArrayLike, labels: ArrayLike) -> float:
    """Cohen's kappa with quadratic weights, in [-1, 1]: 1 is perfect, 0 what chance would give.

    A mistake costs the square of the distance between class numbers, so the value means something only where the
    classes are grades in order. Inputs and errors as for :func:`classification_metrics`.
    """
    from sklearn.metrics import cohen_kappa_score  # here: it imports pandas, which most trials never need

    scores, truth, _ = _checked(logits, labels)
    guesses, every_class = scores.argmax(axis=1), np.arange(scores.shape[1])
    return float(cohen_kappa_score(truth, guesses, labels=every_class, weights="quadratic"))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Matrix, Labels, Labels]:
    """Scores (n, c), labels (n,), and the labels that occur."""
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"need logits (n, c) and labels (n,), not {scores.shape} and {truth.shape}")
    if not np.isfinite(scores).all():
        raise DegenerateInputError("logits must be finite")
    present = np.unique(truth)
    if len(present) < 2:
        raise DegenerateInputError(f"needs images of at least two classes, not {len(present)}")
    if present[0] < 0 or present[-1] >= scores.shape[1]:
        raise ValueError(f"labels must be in 0 ... {scores.shape[1] - 1}, not {present[0]} ... {present[-1]}")
    return scores, truth, present


def _log_odds(scores: Matrix, label: int) -> Matrix:
    """log(p / (1 - p)) of one class: ranks like p, but confident answers do not tie at 1."""
    odds: Matrix = scores[:, label] - logsumexp(np.delete(scores, label, axis=1), axis=1)
    return odds


def _auc(scores: Matrix, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive outranks a negative, ties counting half."""
    n_positive = int(positive.sum())
    ranks = rankdata(scores)
    surplus = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(surplus / (n_positive * (len(scores) - n_positive)))


def _calibration_error(confidence: Matrix, right: NDArray[np.bool_]) -> float:
    """Mean |confidence - accuracy| over ECE_BINS bins of equal width, weighted by their images (Guo et al. 2017)."""
    bins = np.clip(np.ceil(confidence * ECE_BINS) - 1, 0, ECE_BINS - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))
