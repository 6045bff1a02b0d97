"""The penalties as mathematics: formulas, invariances with their negative half, the step on the orthogonal group."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from repsim.penalties.feature_mse import FeatureMSE
from repsim.penalties.hcs import HCS
from repsim.penalties.repsim import RepSim
from repsim.similarity.cka import linear_cka


@pytest.fixture
def features() -> Tensor:
    return torch.randn(40, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def other() -> Tensor:
    return torch.randn(40, 12, generator=torch.Generator().manual_seed(1))


def rotation(dim: int, angle: float = 0.5, dtype: torch.dtype = torch.float32) -> Tensor:
    skew = torch.randn(dim, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.matrix_exp(angle * (skew - skew.T) / math.sqrt(dim)).to(dtype)


def test_hcs_is_one_minus_biased_cka(features: Tensor, other: Tensor) -> None:
    _, biased = linear_cka(features.numpy(), other.numpy())
    assert float(HCS(12)(features, other)) == pytest.approx(1.0 - biased, abs=1e-6)


def test_hcs_knows_no_rotation_scale_or_offset(features: Tensor) -> None:
    moved = 2.5 * features @ rotation(12) + 1.0
    assert float(HCS(12)(moved, features)) == pytest.approx(0.0, abs=1e-6)
    assert float(HCS(12)(features @ torch.diag(torch.linspace(0.1, 3, 12)), features)) > 0.05
    assert float(HCS(12)(features.flip(0), features)) > 0.3


def test_feature_mse_allows_an_offset_only(features: Tensor) -> None:
    assert float(FeatureMSE(12)(features + 3.0, features)) == pytest.approx(0.0, abs=1e-6)
    assert float(FeatureMSE(12)(2.0 * features, features)) == pytest.approx(1.0, abs=1e-5)
    assert float(FeatureMSE(12)(features @ rotation(12), features)) > 0.05


def test_repsim_starts_as_feature_mse(features: Tensor, other: Tensor) -> None:
    penalty = RepSim(12, q_lr=1.0)
    assert float(penalty(features, other)) == pytest.approx(float(FeatureMSE(12)(features, other)), rel=1e-6)


def test_repsim_is_the_formula_for_any_orthogonal_map(features: Tensor, other: Tensor) -> None:
    penalty = RepSim(12, q_lr=1.0)
    penalty.Q.copy_(rotation(12))
    zc, z0c = features - features.mean(0), other - other.mean(0)
    expected = (zc @ penalty.Q - z0c).square().sum() / z0c.square().sum()
    assert float(penalty(features, other)) == pytest.approx(float(expected), rel=1e-5)


def test_repsim_gradient_is_that_of_the_formula(features: Tensor, other: Tensor) -> None:
    penalty = RepSim(12, q_lr=1.0).double()
    penalty.Q.copy_(rotation(12))
    z, direct = (features.double().requires_grad_() for _ in range(2))
    z0c = other.double() - other.double().mean(0)
    penalty.value(z, other.double()).backward()
    ((direct - direct.mean(0)) @ penalty.Q - z0c).square().sum().div(z0c.square().sum()).backward()
    assert z.grad is not None
    assert direct.grad is not None
    torch.testing.assert_close(z.grad, direct.grad, rtol=1e-5, atol=1e-8)


def test_the_low_rank_step_is_the_dense_cayley_step(features: Tensor, other: Tensor) -> None:
    penalty = RepSim(12, q_lr=0.7).double()
    penalty.Q.copy_(rotation(12, dtype=torch.float64))
    before = penalty.Q.clone()
    zc = features.double() - features.double().mean(0)
    z0c = other.double() - other.double().mean(0)
    penalty.value(features.double().requires_grad_(), other.double())
    penalty.after_step()
    b = z0c @ before.T
    skew = zc.T @ b - b.T @ zc
    half = 0.5 * 0.7 / z0c.square().sum() * skew
    eye = torch.eye(12, dtype=torch.float64)
    dense = torch.linalg.solve(eye - half, (eye + half) @ before)
    torch.testing.assert_close(penalty.Q, dense, rtol=1e-9, atol=1e-10)


def test_q_finds_a_rotation_and_stays_orthogonal(features: Tensor) -> None:
    penalty = RepSim(12, q_lr=1.0)
    moved = features @ rotation(12)
    start = float(penalty(moved, features))
    for _ in range(400):
        penalty(moved.clone().requires_grad_(), features)
        penalty.after_step()
    penalty.after_epoch()
    assert start > 0.05
    assert float(penalty(moved, features)) < 1e-3 * start
    assert float((penalty.Q.T @ penalty.Q - torch.eye(12)).abs().max()) < 1e-5


def test_after_epoch_repairs_drift() -> None:
    penalty = RepSim(12, q_lr=1.0)
    penalty.Q.copy_(rotation(12) * 1.01)
    penalty.after_epoch()
    assert float((penalty.Q.T @ penalty.Q - torch.eye(12)).abs().max()) < 1e-3


def test_evaluating_without_gradient_leaves_q_alone(features: Tensor, other: Tensor) -> None:
    penalty = RepSim(12, q_lr=1.0)
    with torch.no_grad():
        penalty(features, other)
    penalty.after_step()
    assert torch.equal(penalty.Q, torch.eye(12))
    penalty(features.clone().requires_grad_(), other)
    penalty.after_step()
    assert not torch.equal(penalty.Q, torch.eye(12))
