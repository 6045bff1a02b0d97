"""The linear probe: multinomial logistic regression on cached features, to convergence.

Features are standardised with the training statistics, the L2 strength is the one of lowest val loss on a fixed grid,
and the result is folded back into plain weights, so that the probe is an ordinary linear head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INVERSE_L2_GRID: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C, from strong to weak."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """``weight`` (classes, d) and ``bias`` (classes,) on raw features; ``inverse_l2`` is the C that was chosen."""

    weight: Float64
    bias: Float64
    inverse_l2: float


def fit_linear_probe(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    val: NDArray[np.float32],
    val_labels: NDArray[np.int64],
    class_weights: Float64 | None,
) -> LinearFit:
    """Fit on train (n, d) with labels (n,) in 0..classes-1, choosing the L2 strength by the loss on val (m, d).

    Every class must occur in ``train_labels``. Ties go to the stronger regularisation.
    """
    from sklearn.linear_model import LogisticRegression  # here: it imports pandas, which most trials never need

    mean = train.mean(axis=0, dtype=np.float64)
    std = train.std(axis=0, dtype=np.float64)
    std = np.where(std < 1e-8, 1.0, std)
    standard = (train - mean) / std
    weights = None if class_weights is None else class_weights[train_labels]
    best: LinearFit | None = None
    best_loss = np.inf
    for inverse_l2 in INVERSE_L2_GRID:
        model = LogisticRegression(C=inverse_l2, max_iter=2000, tol=1e-5)
        model.fit(standard, train_labels, sample_weight=weights)
        coefficients, intercept = _as_softmax(model.coef_, model.intercept_)
        weight = coefficients / std
        bias = intercept - weight @ mean
        loss = _nll(val @ weight.T + bias, val_labels)
        if loss < best_loss:
            best, best_loss = LinearFit(weight, bias, inverse_l2), loss
    if best is None:
        raise FloatingPointError("the linear probe's val loss is not finite for any regularisation")
    return best


def _as_softmax(coefficients: Float64, intercept: Float64) -> tuple[Float64, Float64]:
    """scikit-learn gives two classes one row, the log-odds; the head wants one row each."""
    if len(coefficients) > 1:
        return coefficients, intercept
    return np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-intercept, intercept]) / 2


def _nll(logits: Float64, labels: NDArray[np.int64]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_normaliser = np.log(np.exp(shifted).sum(axis=1))
    return float((log_normaliser - shifted[np.arange(len(labels)), labels]).mean())
