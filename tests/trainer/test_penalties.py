"""The penalties of features as mathematics: formulas, gradients, invariances with their negative half."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repsim.penalties import PenaltyContext
from repsim.penalties.base import Batch, Penalty, Statistics
from repsim.penalties.feature_mse import FeatureMSE
from repsim.penalties.hcs import HCS, u_centred
from repsim.penalties.procrustes import Procrustes, distance_and_gradient
from repsim.penalties.rift import RIFT
from repsim.penalties.triplet import Triplet
from repsim.similarity.cka import linear_cka
from tests.trainer.penalty_tools import context, gradient_of, on, penalty_of, rotation, seeded

H1_X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
H1_Y = torch.tensor([[1.0, 2.0], [2.0, 0.0], [3.0, 1.0], [0.0, 1.0], [1.0, 5.0]])


@pytest.fixture
def features() -> Tensor:
    return seeded(40, 12, seed=0)


@pytest.fixture
def other() -> Tensor:
    return seeded(40, 12, seed=1)


def numeric_gradient(penalty: Penalty, features: Tensor, teacher: Tensor, step: float = 1e-3) -> Tensor:
    """Central differences of R; the penalty is asked without gradient, so that it remembers nothing."""
    found = torch.zeros_like(features)
    with torch.no_grad():
        for place in range(features.numel()):
            values = []
            for sign in (1.0, -1.0):
                moved = features.clone().flatten()
                moved[place] += sign * step
                values.append(float(on(penalty, moved.view_as(features), teacher)))
            found.view(-1)[place] = (values[0] - values[1]) / (2 * step)
    return found


INVARIANT = ("procrustes", "hcs", "rsa", "knn_edge", "triplet")


@pytest.mark.parametrize("name", INVARIANT)
def test_no_rotation_scale_or_offset_counts(name: str, features: Tensor) -> None:
    here = float(on(penalty_of(name), features, features))
    moved = 2.5 * features @ rotation(12) + 1.0
    assert float(on(penalty_of(name), moved, features)) == pytest.approx(here, abs=2e-5)
    stretched = features @ torch.diag(torch.linspace(0.1, 3, 12))
    assert float(on(penalty_of(name), stretched, features)) > here + 0.04
    assert float(on(penalty_of(name), features.flip(0), features)) > here + 0.25


def test_feature_mse_allows_an_offset_only(features: Tensor) -> None:
    assert float(on(FeatureMSE(), features + 3.0, features)) == pytest.approx(0.0, abs=1e-6)
    assert float(on(FeatureMSE(), 2.0 * features, features)) == pytest.approx(1.0, abs=1e-5)
    assert float(on(FeatureMSE(), features @ rotation(12), features)) > 0.05


@pytest.mark.parametrize("name", [*INVARIANT, "feature_mse", "repsim", "bss"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    # knn_edge and rsa are smooth where Huber's function is; triplets have corners, so a step may cross a few
    features, teacher = seeded(8, 3, seed=2), seeded(8, 3, seed=3)
    penalty = penalty_of(name, dim=3)
    exact, numeric = gradient_of(penalty, features, teacher), numeric_gradient(penalty, features, teacher)
    assert float((exact - numeric).norm()) < 0.01 * float(numeric.norm())
    assert float(numeric.norm()) > 0.01


# Procrustes


def test_procrustes_is_the_published_example() -> None:
    """Origin: numpy float64, centred similarity of a 5 x 2 pair."""
    assert float(on(Procrustes(), H1_X, H1_Y)) == pytest.approx(1 - 0.6668859289, abs=1e-6)


def test_the_nuclear_norm_comes_from_the_gram_matrices(features: Tensor, other: Tensor) -> None:
    for rows in (5, 12, 40):  # fewer rows than columns, as many, more
        ours, theirs = (part[:rows] - part[:rows].mean(0) for part in (features.double(), other.double()))
        value, gradient = distance_and_gradient(ours, theirs)
        left, singular, right = torch.linalg.svd(ours.T @ theirs)
        norm = ours.norm() * theirs.norm()
        assert float(value) == pytest.approx(1 - float(singular.sum() / norm), abs=1e-7)
        best = left @ right
        expected = (1 - value) * ours / ours.norm() ** 2 - theirs @ best.T / norm
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
        distance = (ours @ best - theirs).square().sum()
        assert float(distance) == pytest.approx(
            float(ours.square().sum() + theirs.square().sum() - 2 * singular.sum()), rel=1e-9
        )


def test_procrustes_has_a_gradient_where_singular_values_coincide() -> None:
    same = torch.cat([torch.eye(4), -torch.eye(4)])  # four equal singular values
    gradient = gradient_of(Procrustes(), same @ rotation(4) + 0.1 * seeded(8, 4), same)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.norm()) > 1e-4
    assert float(gradient_of(Procrustes(), same @ rotation(4), same).norm()) < 1e-6


# HCS


def test_hcs_is_one_minus_biased_cka(features: Tensor, other: Tensor) -> None:
    debiased, biased = linear_cka(features.numpy(), other.numpy())
    assert float(on(penalty_of("hcs"), features, other)) == pytest.approx(1.0 - biased, abs=1e-6)
    assert float(on(penalty_of("hcs", estimator="debiased"), features, other)) == pytest.approx(
        1.0 - debiased, abs=1e-6
    )
    assert abs(biased - debiased) > 0.05


def test_hcs_is_the_published_example() -> None:
    """Origin: numpy float64; both estimators of a 5 x 2 pair."""
    assert float(on(penalty_of("hcs", dim=2), H1_X, H1_Y)) == pytest.approx(1 - 0.4670915964, abs=1e-6)
    debiased = penalty_of("hcs", dim=2, estimator="debiased")
    assert float(on(debiased, H1_X, H1_Y)) == pytest.approx(1 + 0.8421519211, abs=1e-5)


def test_unrelated_features_look_alike_to_the_biased_estimator_only() -> None:
    one, two = seeded(32, 768, seed=1), seeded(32, 768, seed=2)
    assert float(on(penalty_of("hcs", dim=768), one, two)) == pytest.approx(1 - 0.964, abs=0.01)
    assert float(on(penalty_of("hcs", dim=768, estimator="debiased"), one, two)) == pytest.approx(1.0, abs=0.1)


def test_the_gram_form_is_twice_hcs(features: Tensor, other: Tensor) -> None:
    grams = []
    for part in (features.double(), other.double()):
        rows = part - part.mean(0)
        gram = rows @ rows.T
        grams.append(gram / gram.norm())
    distance = float((grams[0] - grams[1]).square().sum())
    hcs = HCS(context(12)).value(features.double(), other.double())
    assert distance == pytest.approx(2 * float(hcs), rel=1e-12)


def test_hcs_has_the_published_gradient(features: Tensor, other: Tensor) -> None:
    zc, z0c = features - features.mean(0), other - other.mean(0)
    a, b, c = (zc.T @ z0c).square().sum(), (zc.T @ zc).norm(), (z0c.T @ z0c).norm()
    expected = -(2 * z0c @ z0c.T @ zc / (b * c) - 2 * a * zc @ (zc.T @ zc) / (b**3 * c))
    found = gradient_of(penalty_of("hcs"), features, other)
    torch.testing.assert_close(found, expected - expected.mean(0), atol=1e-7, rtol=1e-4)


def test_u_centring_leaves_no_diagonal_and_no_row_sums(features: Tensor) -> None:
    gram = u_centred(features @ features.T)
    assert float(gram.diagonal().abs().max()) == 0.0
    assert float(gram.sum(dim=0).abs().max()) < 1e-4
    assert float(gram.abs().max()) > 1.0


def test_a_margin_is_free(features: Tensor, other: Tensor) -> None:
    plain = float(on(penalty_of("hcs"), features, other))
    assert float(on(penalty_of("hcs", margin=0.1), features, other)) == pytest.approx(plain - 0.1, abs=1e-6)
    near = features + 0.05 * other
    assert 0 < float(on(penalty_of("hcs"), near, features)) < 0.1
    assert float(on(penalty_of("hcs", margin=0.1), near, features)) == 0.0
    assert float(gradient_of(penalty_of("hcs", margin=0.1), near, features).norm()) == 0.0


@pytest.mark.parametrize("settings", [{}, {"estimator": "debiased"}, {"margin": 0.1}, {"queue": 8}], ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_a_collapsed_batch_has_a_finite_gradient(settings: dict[str, object], value: float, features: Tensor) -> None:
    constant = torch.full_like(features, value)
    nearly = constant + 1e-8 * features
    for ours, teacher in ((constant, features), (constant, constant), (nearly, features)):
        penalty = penalty_of("hcs", **settings)  # type: ignore[arg-type]
        assert bool(torch.isfinite(gradient_of(penalty, ours, teacher)).all())


def test_a_queue_enlarges_the_batch_with_past_ones(features: Tensor, other: Tensor) -> None:
    queued = penalty_of("hcs", queue=24)
    first = on(queued, features[:16].clone().requires_grad_(), other[:16])
    assert torch.equal(first.detach(), on(penalty_of("hcs"), features[:16], other[:16]))
    queued.after_step()
    queued.after_step()  # nothing new to remember
    second = on(queued, features[16:32].clone().requires_grad_(), other[16:32])
    assert float(second.detach()) == pytest.approx(float(on(penalty_of("hcs"), features[:32], other[:32])), abs=1e-6)
    queued.after_step()
    with torch.no_grad():  # 24 of the 32 rows are left, the newest first
        third = on(queued, features[32:], other[32:])
    rows = [*range(32, 40), *range(16, 32), *range(0, 8)]
    assert float(third) == pytest.approx(float(on(penalty_of("hcs"), features[rows], other[rows])), abs=1e-6)
    assert not torch.isclose(third, on(penalty_of("hcs"), features[32:], other[32:]))


# RIFT


def rift(features: Tensor, **settings: object) -> RIFT:
    """RIFT whose pretrained covariance is that of ``features``."""
    base = context(features.shape[1], **settings)  # type: ignore[arg-type]
    moments = Statistics(mean=features.mean(0), covariance=torch.cov(features.T))
    return RIFT(PenaltyContext(dim=base.dim, n_classes=base.n_classes, config=base.config, seed=0, statistics=moments))


def test_rift_is_the_published_example() -> None:
    """Origin: numpy float64; |cov(X) - cov(Y)|² of a 5 x 2 pair, here relative to |cov(Y)|²."""
    value = float(rift(H1_Y, momentum=1.0)(Batch(features=H1_X)))
    assert value == pytest.approx(6.69 / float(torch.cov(H1_Y.T).square().sum()), rel=1e-5)


def test_rift_has_the_published_gradient_whatever_the_momentum(features: Tensor, other: Tensor) -> None:
    for momentum in (1.0, 0.1):
        penalty = rift(other, momentum=momentum)
        at = features.clone().requires_grad_()
        penalty(Batch(features=at)).backward()
        zc = features - features.mean(0)
        goal = torch.cov(other.T)
        running = momentum * torch.cov(features.T) + (1 - momentum) * goal
        expected = 4 * zc @ (running - goal) / (39 * goal.square().sum())
        assert at.grad is not None
        torch.testing.assert_close(at.grad, expected, atol=1e-7, rtol=1e-4)


def test_rift_moves_a_running_covariance_after_each_step(features: Tensor, other: Tensor) -> None:
    penalty = rift(other, momentum=0.25)
    before = penalty.running.clone()
    with torch.no_grad():
        penalty(Batch(features=features))
    penalty.after_step()
    assert torch.equal(penalty.running, before)
    penalty(Batch(features=features.clone().requires_grad_()))
    penalty.after_step()
    torch.testing.assert_close(penalty.running, 0.75 * before + 0.25 * torch.cov(features.T), atol=1e-5, rtol=1e-4)


def test_rift_does_not_see_a_permutation_and_hcs_does(features: Tensor) -> None:
    shuffled = features[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    penalty = rift(features, momentum=1.0)
    assert float(penalty(Batch(features=shuffled))) == pytest.approx(float(penalty(Batch(features=features))), abs=1e-6)
    assert float(penalty(Batch(features=features))) < 1e-6
    assert float(on(penalty_of("hcs"), shuffled, features)) > 0.5
    assert float(penalty(Batch(features=1.5 * features))) > 0.5


def test_one_batch_is_a_noise_floor_away_from_its_own_covariance() -> None:
    """Origin: E|C_batch - C|²/|C|² = (tr(C)²/tr(C²) + 1)/(n - 1) for Gaussian rows."""
    spectrum = torch.linspace(0.1, 2.0, 24)
    base = context(24, momentum=1.0)
    exact = Statistics(mean=torch.zeros(24), covariance=torch.diag(spectrum.square()))
    penalty = RIFT(PenaltyContext(dim=24, n_classes=2, config=base.config, seed=0, statistics=exact))
    draws = [float(penalty(Batch(features=seeded(32, 24, seed=s) * spectrum))) for s in range(300)]
    rank = float(spectrum.square().sum() ** 2 / spectrum.pow(4).sum())
    assert sum(draws) / len(draws) == pytest.approx((rank + 1) / 31, rel=0.05)
    averaged = RIFT(PenaltyContext(dim=24, n_classes=2, config=context(24).config, seed=0, statistics=exact))
    assert float(averaged(Batch(features=seeded(32, 24) * spectrum))) < 0.05 * (rank + 1) / 31


def test_a_learned_q_holds_the_spectrum_alone(features: Tensor) -> None:
    """Origin: min over Q of |C - Q C0 Qᵀ|² is the gap of the sorted eigenvalues (Hoffman & Wielandt)."""
    turned = 1.3 * features @ rotation(12, angle=1.0)
    penalty = rift(features, momentum=1.0, q="learned", q_lr=3.0)
    fixed = float(rift(features, momentum=1.0)(Batch(features=turned)))
    for _ in range(20 * 400):
        penalty._next = torch.cov(turned.T)
        penalty.after_step()
    spectra = [torch.linalg.eigvalsh(torch.cov(part.T)) for part in (turned, features)]
    gap = float((spectra[0] - spectra[1]).square().sum() / spectra[1].square().sum())
    learned = float(penalty(Batch(features=turned)))
    assert gap - 1e-4 < learned < gap + 0.05 * (fixed - gap)
    assert float((penalty.Q.T @ penalty.Q - torch.eye(12)).abs().max()) < 1e-4
    torch.testing.assert_close(penalty.goal, penalty.Q @ torch.cov(features.T) @ penalty.Q.T, atol=1e-3, rtol=1e-3)


# BSS


def test_bss_is_the_energy_of_the_smallest_singular_values(features: Tensor, other: Tensor) -> None:
    for rows, k in ((8, 1), (8, 3), (40, 2)):
        ours, theirs = (torch.linalg.svdvals(part[:rows]) for part in (features, other))
        expected = float(
            ours[-k:].square().sum() / theirs[-k:].square().sum().clamp_min(0.01 * k * theirs.square().mean())
        )
        assert float(on(penalty_of("bss", smallest=k), features[:rows], other[:rows])) == pytest.approx(
            expected, rel=1e-4
        )


def test_bss_has_a_gradient_where_singular_values_coincide() -> None:
    same = torch.eye(4, 6)
    gradient = gradient_of(penalty_of("bss", dim=6, smallest=2), same, same)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.norm()) == pytest.approx(2.0 * 2**0.5 / 2.0, rel=1e-5)


def test_bss_does_not_blow_up_where_the_pretrained_features_have_nothing() -> None:
    flat = seeded(8, 12)
    flat[0] = flat[1]
    value = float(on(penalty_of("bss"), seeded(8, 12, seed=4), flat))
    assert 0.1 < value < 1000
    assert float(on(penalty_of("bss"), flat, flat)) == pytest.approx(0.0, abs=1e-6)


def test_triplets_count_what_the_teacher_decided() -> None:
    """Three points on a line: the teacher's pair is (0, 1), so [d01 - d02 + m] and [d01 - d12 + m] are what is paid."""
    teacher = torch.tensor([[0.0], [1.0], [5.0]])
    student = torch.tensor([[0.0], [3.0], [4.0]])
    penalty = penalty_of("triplet", dim=1, margin=0.1)
    sides, told = torch.tensor([3.0, 4.0, 1.0]), torch.tensor([1.0, 5.0, 4.0])
    unit = (told / told.mean()).std(correction=0)
    ours = sides / sides.mean() / unit
    expected = max(0.0, float(ours[0] - ours[1]) + 0.1) + max(0.0, float(ours[0] - ours[2]) + 0.1)
    assert float(on(penalty, student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(on(penalty, teacher, teacher)) == 0.0


def test_many_triplets_are_a_seeded_sample() -> None:
    features, teacher = seeded(50, 6, seed=1), seeded(50, 6, seed=2)
    one, again, another = (float(on(triplet_of(seed), features, teacher)) for seed in (0, 0, 1))
    assert one == again
    assert one != another
    assert one == pytest.approx(another, rel=0.1)
    few = seeded(12, 6, seed=1)
    assert float(on(triplet_of(0), few, teacher[:12])) == float(on(triplet_of(1), few, teacher[:12]))


def triplet_of(seed: int) -> Penalty:
    """Triplets sampled with this seed."""
    return Triplet(context(6, seed=seed))


def test_knn_edges_leave_far_images_free() -> None:
    """Two groups; one turns round the other, then one is stretched from within."""
    near, far = 0.1 * seeded(10, 4, seed=1), 0.1 * seeded(10, 4, seed=2)
    teacher = torch.cat([near, far + torch.tensor([5.0, 0.0, 0.0, 0.0])])
    turned = torch.cat([near @ rotation(4, angle=2.0), far + torch.tensor([0.0, 5.0, 0.0, 0.0])])
    stretched = torch.cat([near * torch.linspace(1.0, 20.0, 10)[:, None], teacher[10:]])
    edges = penalty_of("knn_edge", dim=4, neighbours=3)
    everything = penalty_of("rsa", dim=4)
    assert float(on(edges, turned, teacher)) < 0.2 * float(on(everything, turned, teacher))
    assert float(on(edges, stretched, teacher)) > 10 * float(on(edges, turned, teacher))


def test_huber_keeps_one_wild_pair_from_ruling() -> None:
    features = seeded(20, 6)
    for wild, at_most in ((10.0, 12.0), (1000.0, 40.0)):
        moved = features.clone()
        moved[0] *= wild
        assert float(on(penalty_of("rsa", dim=6), moved, features)) < at_most
