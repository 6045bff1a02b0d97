"""Quality of features and predictions: against brute force, constructed spectra, and whole trials."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repsim.config import TrialConfig
from repsim.errors import DegenerateInputError
from repsim.evaluation import sharpness_indices
from repsim.extra_measures import IMAGES, few_indices
from repsim.metrics import classification_metrics, equal_mass_error, quadratic_kappa
from repsim.quality import alpha_req, effective_rank, knn_accuracy, rankme
from repsim.records import FACTS, METRICS, OBJECTIVE_METRICS, STANDARD_METRICS
from repsim.similarity.comparison import HEADLINE
from repsim.similarity.registry import REGISTRY
from repsim.trainer import Trainer
from repsim.workspace import Workspace

Matrix = NDArray[np.float64]
Configure = Callable[..., TrialConfig]
FULL = {"measure.sharpness": "full", "measure.similarity": "full", "measure.quality": "full"}


def with_spectrum(eigenvalues: Matrix, n: int = 300, seed: int = 0) -> Matrix:
    """Features (n, d) whose covariance has these eigenvalues, up to a common factor, in random directions."""
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(np.concatenate([np.ones((n, 1)), rng.normal(size=(n, len(eigenvalues)))], axis=1))[0][:, 1:]
    directions = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    features: Matrix = rows * np.sqrt(eigenvalues) @ directions
    return features


def rotated(features: Matrix) -> Matrix:
    d = features.shape[1]
    moved: Matrix = features @ np.linalg.qr(np.random.default_rng(9).normal(size=(d, d)))[0]
    return moved


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_knn_accuracy_is_the_vote_written_out(k: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    bank_labels, labels = rng.integers(0, 3, 90), rng.integers(0, 3, 40)
    bank = centres[bank_labels] + 1.5 * rng.normal(size=(90, 8))
    features = centres[labels] + 1.5 * rng.normal(size=(40, 8))
    right = 0
    for row, label in zip(features, labels, strict=True):
        cosine = bank @ row / np.linalg.norm(bank, axis=1) / np.linalg.norm(row)
        nearest = np.argsort(-cosine)[:k]
        votes = [np.exp(cosine[nearest][bank_labels[nearest] == c] / 0.07).sum() for c in range(3)]
        right += int(np.argmax(votes) == label)
    assert 0.4 < right / 40 < 0.95
    assert knn_accuracy(features, labels, bank, bank_labels, k=k) == right / 40
    assert knn_accuracy(7 * features, labels, 0.1 * bank, bank_labels, k=k) == right / 40


def test_a_near_neighbour_outvotes_two_far_ones() -> None:
    bank = np.array([[1.0, 0.0], [0.5, 1.0], [0.5, -1.0]])
    assert knn_accuracy([[2.0, 0.1]], [0], bank, [0, 1, 1], k=3) == 1.0
    assert knn_accuracy([[0.5, 1.0]], [1], bank, [0, 1, 1], k=3) == 1.0
    assert knn_accuracy([[2.0, 0.1]], [1], bank, [0, 1, 1], k=3) == 0.0


def test_knn_accuracy_refuses_what_does_not_fit() -> None:
    bank, labels = np.eye(3), [0, 1, 2]
    with pytest.raises(ValueError, match=r"need features \(n, d\), .* not \(2, 2\), \(2,\), \(3, 3\) and \(3,\)"):
        knn_accuracy(np.eye(2), [0, 1], bank, labels)
    with pytest.raises(ValueError, match=r"not \(3, 3\), \(2,\), \(3, 3\) and \(3,\)"):
        knn_accuracy(bank, [0, 1], bank, labels)
    with pytest.raises(ValueError, match="needs k >= 1, not 0"):
        knn_accuracy(bank, labels, bank, labels, k=0)
    with pytest.raises(DegenerateInputError, match="features are constant"):
        knn_accuracy(bank, labels, np.ones((3, 3)), labels)


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_equal_directions_count_one_each(rank: int) -> None:
    features = with_spectrum(np.ones(rank))
    assert rankme(features) == pytest.approx(rank)
    assert effective_rank(features) == pytest.approx(rank)


def test_both_ranks_are_the_entropy_written_out() -> None:
    eigenvalues = np.array([9.0, 4.0, 1.0, 0.25])
    features = with_spectrum(eigenvalues)
    for found, shares in ((rankme, np.sqrt(eigenvalues)), (effective_rank, eigenvalues)):
        p = shares / shares.sum()
        assert found(features) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
        assert found(rotated(3 * features)) == pytest.approx(found(features))


def test_only_rankme_sees_a_shift() -> None:
    features = with_spectrum(np.arange(1.0, 9.0))
    shifted = features + 10.0
    assert rankme(shifted) < 0.5 * rankme(features)
    assert effective_rank(shifted) == pytest.approx(effective_rank(features))
    assert alpha_req(shifted) == pytest.approx(alpha_req(features))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_the_exponent_of_a_power_law_is_found(alpha: float) -> None:
    eigenvalues = np.arange(1.0, 121.0) ** -alpha
    assert alpha_req(with_spectrum(eigenvalues)) == pytest.approx(alpha, rel=1e-6)
    for outside in (slice(0, 3), slice(100, 120)):  # ranks 1 to 3 and above 100 are not asked
        changed = eigenvalues.copy()
        changed[outside] *= 3.0 if outside.start == 0 else 0.5
        assert alpha_req(with_spectrum(changed)) == pytest.approx(alpha, rel=1e-6)
    changed = eigenvalues.copy()
    changed[:50] *= 2.0
    assert alpha_req(with_spectrum(changed)) > alpha + 0.05


def test_rounding_is_no_part_of_the_spectrum() -> None:
    features = with_spectrum(np.arange(1.0, 21.0) ** -1.0).astype(np.float32)
    padded = np.concatenate([features, features[:, :5] * 2], axis=1).astype(np.float64)
    noise = padded + 1e-9 * np.random.default_rng(0).normal(size=padded.shape)
    assert alpha_req(noise) == pytest.approx(alpha_req(padded), rel=1e-3)


def test_a_short_spectrum_has_no_exponent() -> None:
    assert alpha_req(with_spectrum(np.arange(1.0, 8.0) ** -1.0)) > 0
    with pytest.raises(DegenerateInputError, match="needs a spectrum of at least 7 values, not 6"):
        alpha_req(with_spectrum(np.arange(1.0, 7.0) ** -1.0))


@pytest.mark.parametrize("measure", [rankme, effective_rank, alpha_req])
def test_features_without_content_are_refused(measure: Callable[[Matrix], float]) -> None:
    with pytest.raises(DegenerateInputError, match=r"all features are 0|features are constant"):
        measure(np.zeros((20, 5)))
    with pytest.raises(DegenerateInputError, match="features must be finite"):
        measure(np.full((20, 5), np.nan))
    with pytest.raises(DegenerateInputError, match=r"no features in a matrix of shape \(0, 5\)"):
        measure(np.zeros((0, 5)))
    with pytest.raises(ValueError, match=r"need a matrix \(n, d\), not \(5,\)"):
        measure(np.zeros(5))


def test_constant_features_have_no_covariance_but_one_direction() -> None:
    assert rankme(np.ones((20, 5))) == pytest.approx(1.0)
    for measure in (effective_rank, alpha_req):
        with pytest.raises(DegenerateInputError, match="features are constant"):
            measure(np.ones((20, 5)))


@pytest.mark.parametrize("method", ["full", "linear_probe"])
def test_a_trial_reports_what_it_is_asked_for(method: str, configure: Configure, workspace: Workspace) -> None:
    plain, asked = (Trainer(configure(method=method, **more), workspace=workspace) for more in ({}, FULL))
    results = []
    for trainer in (plain, asked):
        while not trainer.done:
            trainer.step()
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        results.append(trainer.finish())
        assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    standard, full = results
    assert set(standard.values) == set(STANDARD_METRICS)
    assert set(full.values) | {name for name, _ in full.facts["not_measured"]} == set(METRICS)  # type: ignore[attr-defined]
    assert all(math.isfinite(value) for value in full.values.values())
    costs = {"seconds", "images_per_second", "peak_memory_bytes"}
    for name in STANDARD_METRICS:
        assert full.values[name] == standard.values[name] or any(cost in name for cost in costs)
    assert not {"not_measured", "similarity_null"} & set(standard.facts)
    assert set(full.facts) <= set(FACTS)


def test_what_is_not_defined_is_left_out_with_its_reason(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(method="linear_probe", **FULL), workspace=workspace)
    trainer.step()
    result = trainer.finish()
    reasons = dict(result.facts["not_measured"])  # type: ignore[call-overload]
    assert "PWCCA needs more than" in reasons["val_pwcca"]  # ten images, and more features than that
    assert not set(reasons) & set(result.values)
    null = dict(result.facts["similarity_null"])  # type: ignore[call-overload]
    assert set(null) == {f"{s}_{name}" for s in ("val", "test") for name in REGISTRY} - set(reasons)
    assert result.values["val_cka_rbf"] == pytest.approx(1.0)
    assert null["val_cka_rbf"] < 0.5


def test_the_table_of_metrics_knows_every_measure() -> None:
    asked = {key: {n.removeprefix("val_") for n, m in METRICS.items() if m.asked_by == key} for key in FULL}
    similarity = {name for name in asked["measure.similarity"] if not name.startswith("test_")}
    assert similarity == set(REGISTRY) - set(HEADLINE)
    for name in similarity:
        direction = "maximize" if REGISTRY[name].higher_is_closer else "minimize"
        assert METRICS[f"val_{name}"].direction == direction
    assert not {name for name in OBJECTIVE_METRICS if METRICS[name].asked_by is not None}


def test_the_few_sharpness_images_are_some_of_the_many(configure: Configure, workspace: Workspace) -> None:
    images = workspace.images(configure().data)
    assert np.array_equal(few_indices(images), sharpness_indices(images))

    class Many:
        train = np.arange(0, 2000, 2)

    few = few_indices(Many())  # type: ignore[arg-type]
    assert len(np.unique(few)) == IMAGES
    assert set(few) <= set(sharpness_indices(Many()))  # type: ignore[arg-type]


def test_equal_mass_bins_hold_equally_many_images() -> None:
    confidence = 0.51 + 0.48 * np.linspace(0, 1, 45) ** 4
    logits = np.stack([np.log(confidence), np.log(1 - confidence)], axis=1)
    labels = np.arange(45) % 2
    gaps = (labels == 0) - confidence
    known = sum(abs(gaps[start : start + 3].sum()) for start in range(0, 45, 3)) / 45
    assert equal_mass_error(logits, labels) == pytest.approx(known)
    assert equal_mass_error(logits, labels) != pytest.approx(classification_metrics(logits, labels)["ece"], rel=0.05)
    order = np.random.default_rng(0).permutation(45)
    assert equal_mass_error(logits[order], labels[order]) == pytest.approx(known)


def test_ties_in_confidence_do_not_depend_on_the_order_of_images() -> None:
    logits = np.tile([[2.0, 0.0]], (60, 1))
    labels = np.repeat([0, 1], [45, 15])
    p = 1 / (1 + math.exp(-2))
    found = [equal_mass_error(logits, labels[order]) for order in (np.arange(60), np.arange(60)[::-1])]
    assert found == pytest.approx([abs(0.75 - p)] * 2)


def test_fewer_images_than_bins_have_a_bin_each() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    assert equal_mass_error(np.log(p), [0, 1, 1]) == pytest.approx((0.1 + 0.6 + 0.3) / 3)


def test_quadratic_kappa_is_the_formula() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 200)
    guesses = np.clip(labels + rng.integers(-1, 2, 200), 0, 4)
    logits = np.eye(5)[guesses]
    observed = np.zeros((5, 5))
    np.add.at(observed, (labels, guesses), 1 / 200)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    weights = np.square(np.subtract.outer(np.arange(5), np.arange(5)))
    assert quadratic_kappa(logits, labels) == pytest.approx(1 - (weights * observed).sum() / (weights * expected).sum())
    assert quadratic_kappa(np.eye(5)[labels], labels) == 1.0
    shuffled = np.array([2, 0, 4, 1, 3])  # other names for the same classes: the order is what counts
    assert quadratic_kappa(np.eye(5)[shuffled[guesses]], shuffled[labels]) < quadratic_kappa(logits, labels) - 0.1
    assert quadratic_kappa(np.tile([1.0, 0.0], (4, 1)), [0, 1, 0, 1]) == 0.0


@pytest.mark.parametrize("measure", [equal_mass_error, quadratic_kappa])
def test_predictions_are_checked(measure: Callable[[object, object], float]) -> None:
    with pytest.raises(DegenerateInputError, match="at least two classes, not 1"):
        measure(np.zeros((3, 2)), [1, 1, 1])
    with pytest.raises(DegenerateInputError, match="logits must be finite"):
        measure([[0.0, np.nan], [1.0, 0.0]], [0, 1])
    with pytest.raises(ValueError, match=r"need logits \(n, c\) and labels \(n,\)"):
        measure(np.zeros((2, 2)), [0, 1, 0])
