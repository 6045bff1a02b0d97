"""RepSim and the four ways of learning its orthogonal map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repsim.penalties.repsim import RepSim
from repsim.penalties.rotations import Cayley, LowRank, Procrustes, Riemannian, Rotation, build_rotation, polar_factor
from tests.trainer.penalty_tools import context, gradient_of, on, penalty_of, rotation, seeded

MAPS = ("riemannian", "procrustes", "cayley", "low_rank")
every_map = pytest.mark.parametrize("name", MAPS)


@pytest.fixture
def features() -> Tensor:
    return seeded(40, 12, seed=0)


@pytest.fixture
def other() -> Tensor:
    return seeded(40, 12, seed=1)


def repsim(**settings: object) -> RepSim:
    return RepSim(context(12, **settings))  # type: ignore[arg-type]


def matrix(map_: Rotation, dim: int = 12) -> Tensor:
    """Q, read off ``back``."""
    dtype = next(map_.buffers()).dtype
    return map_.back(torch.eye(dim, dtype=dtype)).T


def learn(penalty: RepSim, features: Tensor, teacher: Tensor, steps: int) -> None:
    for _ in range(steps):
        on(penalty, features.clone().requires_grad_(), teacher)
        penalty.after_step()
    penalty.after_epoch()


def test_the_four_maps_are_what_they_are_called() -> None:
    kinds = (Riemannian, Procrustes, Cayley, LowRank)
    for name, kind in zip(MAPS, kinds, strict=True):
        assert type(build_rotation(context(5, map=name).config, 5, 0)) is kind


@every_map
def test_repsim_starts_as_feature_mse(name: str, features: Tensor, other: Tensor) -> None:
    expected = float(on(penalty_of("feature_mse"), features, other))
    assert float(on(repsim(map=name), features, other)) == pytest.approx(expected, rel=1e-5)


@every_map
def test_a_learned_map_is_orthogonal_and_finds_a_rotation(name: str, features: Tensor) -> None:
    penalty = repsim(map=name, rank=12)
    moved = features @ rotation(12)
    start = float(on(penalty, moved, features))
    learn(penalty, moved, features, 400)
    q = matrix(penalty.rotation)
    assert start > 0.05
    assert float(on(penalty, moved, features)) < 1e-3 * start
    assert float((q.T @ q - torch.eye(12)).abs().max()) < 1e-5
    torch.testing.assert_close(q, rotation(12).T, atol=0.02, rtol=0.0)


@every_map
def test_a_frozen_model_leaves_every_map_alone(name: str) -> None:
    """The trap of training Q with Adam: rounding noise becomes full steps."""
    penalty = RepSim(context(64, map=name, scale=True))
    spectrum = torch.logspace(0, -4, 64)  # real features have directions with next to no energy
    pool = seeded(200, 64) * spectrum + 1.0
    for step in range(50):
        rows = torch.randint(0, 200, (32,), generator=torch.Generator().manual_seed(step))
        teacher = pool[rows]
        noisy = teacher + 1e-7 * seeded(32, 64, seed=step)
        value = on(penalty, noisy.requires_grad_(), teacher)
        penalty.after_step()
    penalty.after_epoch()
    assert float(value.detach()) < 1e-6
    assert abs(float(penalty.log_scale)) < 1e-6


def test_adam_on_the_map_would_not() -> None:
    """The same steps with Adam's division by the gradient's own size leave the penalty far from zero."""
    skew = torch.zeros(64, 64, requires_grad=True)
    optimiser = torch.optim.Adam([skew], lr=1e-2)
    teacher = seeded(32, 64)
    for step in range(5):
        noisy = teacher + 1e-7 * seeded(32, 64, seed=step)
        value = (noisy @ torch.matrix_exp(skew - skew.T) - teacher).square().sum() / teacher.square().sum()
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(value.detach()) > 1e-2


def test_repsim_is_the_formula_for_any_orthogonal_map(features: Tensor, other: Tensor) -> None:
    penalty = repsim()
    assert isinstance(penalty.rotation, Riemannian)
    penalty.rotation.Q.copy_(rotation(12))
    zc, z0c = features - features.mean(0), other - other.mean(0)
    expected = (zc @ rotation(12) - z0c).square().sum() / z0c.square().sum()
    assert float(on(penalty, features, other)) == pytest.approx(float(expected), rel=1e-5)
    gradient = 2 * (zc @ rotation(12) - z0c) @ rotation(12).T / z0c.square().sum()
    torch.testing.assert_close(gradient_of(penalty, features, other), gradient, rtol=1e-4, atol=1e-7)


def test_the_low_rank_step_is_the_dense_cayley_step(features: Tensor, other: Tensor) -> None:
    found = Riemannian(12, q_lr=0.7).double()
    found.Q.copy_(rotation(12, dtype=torch.float64))
    before = found.Q.clone()
    zc = features.double() - features.double().mean(0)
    z0c = other.double() - other.double().mean(0)
    found.learn(zc, z0c, found.back(z0c))
    b = z0c @ before.T
    half = 0.5 * 0.7 / z0c.square().sum() * (zc.T @ b - b.T @ zc)
    eye = torch.eye(12, dtype=torch.float64)
    dense = torch.linalg.solve(eye - half, (eye + half) @ before)
    torch.testing.assert_close(found.Q, dense, rtol=1e-9, atol=1e-10)


def test_upkeep_repairs_drift_and_leaves_an_orthogonal_map() -> None:
    found = Riemannian(12, q_lr=1.0)
    found.upkeep()
    assert torch.equal(found.Q, torch.eye(12))
    found.Q.copy_(rotation(12) * 1.01)
    found.upkeep()
    assert float((found.Q.T @ found.Q - torch.eye(12)).abs().max()) < 1e-3


def test_cayley_follows_its_gradient(features: Tensor, other: Tensor) -> None:
    """Away from the identity too: the closed form against automatic differentiation."""
    found = Cayley(12, q_lr=0.5).double()
    skew = 0.4 * seeded(12, 12, seed=7, dtype=torch.float64)
    found.A.copy_(skew - skew.T)
    z, z0 = features.double(), other.double()
    start = found.A.clone().requires_grad_()
    eye = torch.eye(12, dtype=torch.float64)
    q = torch.linalg.solve(eye - start / 2, eye + start / 2)
    torch.testing.assert_close(found.back(z0), (z0 @ q.T).detach())
    ((z @ q - z0).square().sum() / z0.square().sum()).backward()
    assert start.grad is not None
    found.learn(z, z0, found.back(z0))
    torch.testing.assert_close(found.A, start.detach() - 0.5 / 2 * (start.grad - start.grad.T), atol=1e-12, rtol=1e-9)


def test_the_low_rank_map_is_the_cayley_map_of_its_product(features: Tensor) -> None:
    found = LowRank(12, rank=3, q_lr=1.0, seed=0)
    found.C.copy_(0.3 * seeded(12, 3, seed=8))
    dense = Cayley(12, q_lr=1.0)
    dense.A.copy_(found.B @ found.C.T - found.C @ found.B.T)
    torch.testing.assert_close(found.back(features), dense.back(features), atol=1e-5, rtol=1e-4)
    changed = torch.linalg.svdvals(matrix(found) - torch.eye(12))
    assert int((changed > 1e-5).sum()) == 6
    other_seed = LowRank(12, rank=3, q_lr=1.0, seed=1)
    assert not torch.equal(found.B, other_seed.B)


def test_procrustes_is_the_polar_factor_of_the_running_mean(features: Tensor, other: Tensor) -> None:
    found = Procrustes(12, momentum=1.0)
    found.back(other)
    for step in range(20):
        assert torch.equal(found.Q, torch.eye(12)), step
        found.learn(features, other, other)
    left, _, right = torch.linalg.svd(features.T @ other)
    torch.testing.assert_close(found.Q, left @ right, atol=0.02, rtol=0.0)
    averaged = Procrustes(12, momentum=0.25)
    for part in (features, other):
        averaged.learn(part, part, part)
    scatter = [part.T @ part / part.square().sum() for part in (features, other)]
    torch.testing.assert_close(averaged.moment, 0.75 * 0.25 * scatter[0] + 0.25 * scatter[1])


def test_the_polar_factor_keeps_what_nothing_is_known_about() -> None:
    """The moment knows two directions, the map turns them and leaves the others as they are."""
    moment = torch.zeros(6, 6)
    moment[:2, :2] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    current = torch.eye(6)
    current[4:, 4:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = polar_factor(moment, current)
    torch.testing.assert_close(found[:2, :2], moment[:2, :2], atol=1e-3, rtol=0.0)
    torch.testing.assert_close(found[2:, 2:], current[2:, 2:])


def test_a_learned_scale_finds_the_scale(features: Tensor) -> None:
    fixed, scaled = repsim(), repsim(scale=True)
    for penalty in (fixed, scaled):
        learn(penalty, 0.5 * features, features, 200)
    assert float(scaled.log_scale.exp()) == pytest.approx(2.0, rel=1e-3)
    assert float(on(scaled, 0.5 * features, features)) < 1e-5
    assert float(on(fixed, 0.5 * features, features)) == pytest.approx(0.25, rel=1e-3)
    assert float(fixed.log_scale) == 0.0


def test_a_vanishing_model_does_not_carry_the_scale_away(features: Tensor) -> None:
    penalty = repsim(scale=True)
    learn(penalty, torch.zeros(40, 12), features, 20)
    assert abs(float(penalty.log_scale)) <= 2.0
    assert float(on(penalty, torch.zeros(40, 12), features)) == pytest.approx(1.0, rel=1e-5)


def test_without_centring_an_offset_counts(features: Tensor) -> None:
    assert float(on(repsim(), features + 1.0, features)) < 1e-6
    assert float(on(repsim(center=False), features + 1.0, features)) > 0.1


@every_map
def test_evaluating_without_gradient_leaves_the_map_alone(name: str, features: Tensor, other: Tensor) -> None:
    penalty = repsim(map=name, scale=True)
    before = {key: value.clone() for key, value in penalty.state_dict().items()}
    with torch.no_grad():
        on(penalty, features, other)
    penalty.after_step()
    assert all(torch.equal(value, before[key]) for key, value in penalty.state_dict().items())
    on(penalty, features.clone().requires_grad_(), other)
    penalty.after_step()
    assert any(not torch.equal(value, before[key]) for key, value in penalty.state_dict().items())
