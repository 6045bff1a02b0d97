"""The probe's logistic regression, and the optimiser's groups and schedule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from repsim.config import OptimConfig
from repsim.model import FineTuned
from repsim.optimisation import build_optimizer, lr_scale
from repsim.probe import fit_linear_probe


def blobs(n_classes: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = 2 * np.random.default_rng(9).normal(size=(n_classes, 6))
    features = centres[labels] * [1, 1, 1, 1, 100, 0] + rng.normal(size=(n, 6)) * [1, 1, 1, 1, 100, 0]
    return features.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_probe_is_a_standardised_logistic_regression_on_raw_features(n_classes: int) -> None:
    train, labels = blobs(n_classes, 120, 0)
    val, val_labels = blobs(n_classes, 60, 1)
    fitted = fit_linear_probe(train, labels, val, val_labels, None)
    assert fitted.weight.shape == (n_classes, 6)
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = 1
    reference = LogisticRegression(C=fitted.inverse_l2, max_iter=5000, tol=1e-8).fit((train - mean) / std, labels)
    logits = val @ fitted.weight.T + fitted.bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, reference.predict_proba((val - mean) / std), atol=2e-3)


def test_class_weights_move_the_probe() -> None:
    train, labels = blobs(3, 120, 0)
    val, val_labels = blobs(3, 60, 1)
    plain = fit_linear_probe(train, labels, val, val_labels, None)
    weighted = fit_linear_probe(train, labels, val, val_labels, np.array([10.0, 1.0, 1.0]))
    assert (val @ weighted.weight.T + weighted.bias)[:, 0].mean() > (val @ plain.weight.T + plain.bias)[:, 0].mean()


def test_a_probe_on_features_that_are_not_finite_is_refused() -> None:
    train, labels = blobs(3, 30, 0)
    val, val_labels = blobs(3, 30, 1)
    val[:] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match="val loss is not finite"):
        fit_linear_probe(train, labels, val, val_labels, None)


def test_the_schedule_warms_up_and_falls_to_zero() -> None:
    config = OptimConfig(warmup_fraction=0.2)
    scales = [lr_scale(step, 50, config) for step in range(50)]
    assert scales[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert max(scales) == scales[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(scales[10:]))
    assert 0.0 < scales[-1] < 0.01
    assert lr_scale(40, 50, OptimConfig(schedule="constant")) == 1.0


def test_vectors_do_not_decay_and_the_head_learns_faster() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = FineTuned(backbone, nn.Linear(4, 2), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    groups = build_optimizer(model, OptimConfig(lr=1e-4, weight_decay=0.3), 7.0).param_groups
    decayed = [p for group in groups if group["weight_decay"] > 0 for p in group["params"]]
    assert all(p.ndim > 1 for p in decayed)
    assert len(decayed) == 2
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    head = [group for group in groups if any(p is model.head.weight for p in group["params"])]  # type: ignore[union-attr]
    assert head[0]["lr"] == pytest.approx(7e-4)
    set_by_hand = build_optimizer(model, OptimConfig(lr=1e-4, head_lr=5e-4), 7.0).param_groups
    assert {group["lr"] for group in set_by_hand} == {1e-4, 5e-4}
