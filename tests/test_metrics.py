from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from repsim._torchvision import guard
from repsim.errors import DegenerateInputError
from repsim.metrics import ECE_BINS, classification_metrics
from repsim.records import PER_SPLIT


def case(n: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that know something, and labels of which every class occurs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.0
    return logits * sharpness, labels


@settings(max_examples=25, deadline=None)
@given(n=st.integers(10, 80), classes=st.integers(2, 6), seed=st.integers(0, 999))
def test_the_metrics_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    logits, labels = case(n, classes, seed)
    found = classification_metrics(logits, labels)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    guesses = logits.argmax(axis=1)
    one_vs_rest = [roc_auc_score(labels == label, probabilities[:, label]) for label in range(classes)]
    assert list(found) == ["accuracy", "balanced_accuracy", "auc", "nll", "ece"]
    assert set(found) <= set(PER_SPLIT)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, guesses))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert found["auc"] == pytest.approx(np.mean(one_vs_rest))
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities))


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    guard()  # torchmetrics imports torchvision
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.classification import multiclass_calibration_error

    for seed in range(40):
        logits, labels = case(10 + 5 * seed, 2 + seed % 5, seed)
        probabilities = torch.from_numpy(logits).softmax(dim=1)
        expected = multiclass_calibration_error(
            probabilities, torch.from_numpy(labels), num_classes=logits.shape[1], n_bins=ECE_BINS, norm="l1"
        )
        found = classification_metrics(logits, labels)["ece"]
        assert found == pytest.approx(float(expected), abs=1e-6)  # torchmetrics computes in fp32


def test_a_case_done_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    found = classification_metrics(np.log(probabilities), [0, 1, 1, 1])
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["auc"] == 1.0
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.8]).mean())
    # Each image has a bin of its own: |1-.9|, |0-.6|, |1-.7|, |1-.8|.
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)


def test_calibration_error_averages_within_a_bin() -> None:
    logits = np.log(np.array([[0.81, 0.19], [0.83, 0.17], [0.85, 0.15], [0.82, 0.18]]))
    found = classification_metrics(logits, [0, 0, 1, 0])  # all four between 12/15 and 13/15, three of them right
    assert found["ece"] == pytest.approx(abs(0.75 - (0.81 + 0.83 + 0.85 + 0.82) / 4))
    certain = classification_metrics([[1000.0, -1000.0], [-1000.0, 1000.0]], [0, 1])
    assert certain["ece"] == 0.0
    assert certain["nll"] == 0.0


def test_extreme_logits_stay_finite_and_keep_their_ranks() -> None:
    logits = np.array([[0.0, 800.0], [0.0, 900.0], [0.0, 1000.0], [0.0, 1100.0]])
    found = classification_metrics(logits, [0, 0, 1, 1])
    assert found["auc"] == 1.0  # the probabilities are all equal in floating point
    assert found["nll"] == pytest.approx((800 + 900) / 4)


def test_ties_count_half() -> None:
    assert classification_metrics(np.zeros((6, 3)), [0, 0, 1, 1, 2, 2])["auc"] == 0.5


def test_a_class_that_does_not_occur_is_left_out_of_the_means() -> None:
    logits, labels = case(60, 3, seed=0)
    padded = np.concatenate([logits, np.full((60, 1), -50.0)], axis=1)
    assert classification_metrics(padded, labels) == pytest.approx(classification_metrics(logits, labels))
    wrong = padded.copy()
    wrong[:, 3] = 50.0
    assert classification_metrics(wrong, labels)["accuracy"] == 0.0


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(DegenerateInputError, match="at least two classes, not 1"):
        classification_metrics(np.zeros((3, 2)), [1, 1, 1])
    with pytest.raises(DegenerateInputError, match="at least two classes, not 0"):
        classification_metrics(np.zeros((0, 2)), [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_must_be_finite(bad: float) -> None:
    with pytest.raises(DegenerateInputError, match="logits must be finite"):
        classification_metrics([[0.0, bad], [1.0, 0.0]], [0, 1])


def test_shapes_and_labels_are_checked() -> None:
    with pytest.raises(ValueError, match=r"logits \(n, c\) and labels \(n,\), not \(2, 2\) and \(3,\)"):
        classification_metrics(np.zeros((2, 2)), [0, 1, 0])
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\.\. 1, not 0 \.\.\. 2"):
        classification_metrics(np.zeros((2, 2)), [0, 2])
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\.\. 1, not -1 \.\.\. 1"):
        classification_metrics(np.zeros((2, 2)), [-1, 1])
