"""The heads, and Tversky's contrast model against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from repsim.catalogue import HEADS
from repsim.config import HeadConfig
from repsim.heads import MAKERS, build_head
from repsim.heads.cosine import CosineHead
from repsim.heads.tversky import TverskyHead, difference, intersection


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head_of(name: str, dim: int, n_classes: int, seed: int = 0, **settings: object) -> torch.nn.Module:
    return build_head(HeadConfig(name=name, **settings), dim, n_classes, generator(seed))  # type: ignore[arg-type]


def test_the_catalogue_and_the_code_know_the_same_heads() -> None:
    assert list(MAKERS) == list(HEADS)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_head_is_decided_by_its_generator_alone(name: str) -> None:
    def values(seed: int) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in head_of(name, 64, 3, seed).parameters()])

    torch.manual_seed(1)
    first = values(0)
    torch.manual_seed(2)
    assert torch.equal(values(0), first)
    assert not torch.equal(values(1), first)
    assert head_of(name, 64, 3)(torch.zeros(5, 64)).shape == (5, 3)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_head_learns(name: str) -> None:
    head = head_of(name, 16, 3)
    features, labels = torch.randn(60, 16, generator=generator(1)), torch.arange(60) % 3
    features = (features + 2 * torch.eye(3, 16)[labels]).relu()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_the_linear_head_starts_near_zero() -> None:
    head = head_of("linear", 1000, 10)
    assert isinstance(head, torch.nn.Linear)
    weight = head.weight.detach()
    assert torch.equal(head.bias, torch.zeros(10))
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert float(weight.mean()) == pytest.approx(0.0, abs=5e-4)


def test_the_cosine_head_sees_directions_alone_and_learns_its_scale() -> None:
    head = head_of("cosine", 8, 3, scale=7.0)
    assert isinstance(head, CosineHead)
    features = torch.randn(5, 8, generator=generator())
    torch.testing.assert_close(head(features), head(100 * features))
    cosines = torch.cosine_similarity(features[:, None], head.weight[None], dim=-1)
    torch.testing.assert_close(head(features), 7.0 * cosines)
    assert head.scale.requires_grad


def test_the_mlp_is_lvm_meds_at_the_width_of_a_resnet50() -> None:
    def widths(dim: int, n_classes: int) -> list[tuple[int, int]]:
        layers = [m for m in head_of("mlp", dim, n_classes).modules() if isinstance(m, torch.nn.Linear)]
        return [(layer.in_features, layer.out_features) for layer in layers]

    assert widths(2048, 4) == [(2048, 512), (512, 256), (256, 4)]
    assert widths(64, 10) == [(64, 16), (16, 10), (10, 10)]


BANK = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
A, B = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 2.0], [2.0, -1.0]))
U, W = (A @ BANK.T).relu(), (B @ BANK.T).relu()  # (1, 2, 3) and (2, 0, 1)


@pytest.mark.parametrize(
    ("how", "library", "paper"),
    [
        ("product", 5.0, 5.0),
        ("min", 3.0, 2.0),
        ("max", 4.0, 5.0),
        ("mean", 3.5, 3.5),
        ("gmean", 3.4641016151, 3.1462643700),
        ("softmin", 2.6867383125, -math.log(math.exp(-1) + math.exp(-2)) - math.log(math.exp(-3) + math.exp(-1))),
    ],
)
def test_intersections_by_hand(how: str, library: float, paper: float) -> None:
    assert float(intersection(U, W, how, per_feature=False)) == pytest.approx(library, abs=1e-9)
    assert float(intersection(U, W, how, per_feature=True)) == pytest.approx(paper, abs=1e-9)


def test_differences_by_hand() -> None:
    assert float(difference(U, W, "ignorematch")) == 2.0
    assert float(difference(W, U, "ignorematch")) == 0.0
    assert float(difference(U, W, "subtractmatch")) == 3.0
    assert float(difference(W, U, "subtractmatch")) == 0.0


@pytest.mark.parametrize(("how", "expected"), [("ignorematch", 4.0), ("subtractmatch", 3.5)])
def test_the_contrast_model_by_hand(how: str, expected: float) -> None:
    head = head_of("tversky", 2, 1, bank=3, normalise=False, difference=how)
    assert isinstance(head, TverskyHead)
    with torch.no_grad():
        head.bank.copy_(BANK)
        head.prototypes.copy_(B)
        assert float(head(A.float())) == pytest.approx(expected, abs=1e-6)
        head.theta.fill_(2.0)
        head.alpha.fill_(0.25)
        assert float(head(A.float())) == pytest.approx(10.0 - 0.25 * (2.0 if how == "ignorematch" else 3.0), abs=1e-6)


def test_the_tversky_head_is_not_symmetric_and_counts_as_declared() -> None:
    head = head_of("tversky", 32, 5, bank=16)
    assert isinstance(head, TverskyHead)
    assert sum(parameter.numel() for parameter in head.parameters()) == (5 + 16) * 32 + 3
    assert [float(value.detach()) for value in (head.theta, head.alpha, head.beta)] == [1.0, 0.5, 0.5]
    assert 0.0 <= float(head.bank.detach().min()) < float(head.bank.detach().max()) <= 1.0
    assert float(intersection(U, W, "product", per_feature=False)) == float(
        intersection(W, U, "product", per_feature=False)
    )
    assert float(difference(U, W, "ignorematch")) != float(difference(W, U, "ignorematch"))


def test_only_normalised_logits_ignore_the_features_length_and_stay_small() -> None:
    features = torch.rand(8, 1280, generator=generator(3))
    plain, unit = (head_of("tversky", 1280, 5, normalise=flag) for flag in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(unit(features), unit(10 * features))
        assert float(unit(features).abs().max()) < 100
        assert float(plain(features).abs().max()) > 1000


@pytest.mark.parametrize("how", ["product", "min", "max", "mean", "gmean", "softmin"])
@pytest.mark.parametrize("per_feature", [False, True])
def test_gradients_are_finite_where_nothing_is_shared(how: str, per_feature: bool) -> None:
    head = head_of("tversky", 2, 1, bank=3, normalise=False, intersection=how, per_feature=per_feature)
    assert isinstance(head, TverskyHead)
    with torch.no_grad():
        head.bank.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
        head.prototypes.copy_(torch.tensor([[1.0, -1.0]]))
    head(torch.tensor([[-1.0, 1.0]])).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in head.parameters() if p.grad is not None)
