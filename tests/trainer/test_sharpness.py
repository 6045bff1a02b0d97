"""Sharpness on models whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from repsim.records import RHO_ABSOLUTE, RHO_CURVE, sharpness_name
from repsim.sharpness import sharpness


class TwoLayers(nn.Module):
    """A small network that answers (features, logits), with a tensor of zero norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)
        nn.init.zeros_(self.second.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.tanh(self.first(images))
        return features, self.second(features)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)


def batches_of(data: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(data[0]), size):
        yield data[0][start : start + size], data[1][start : start + size]


def by_hand(model: TwoLayers, data: tuple[Tensor, Tensor], rho: float, *, relative: bool) -> float:
    """The definition, in float64."""
    double = TwoLayers().double()
    double.load_state_dict(model.state_dict())
    images, labels = data[0].double(), data[1]
    loss = nn.functional.cross_entropy(double(images)[1], labels)
    parameters = list(double.parameters())
    gradient = torch.autograd.grad(loss, parameters)
    total = torch.sqrt(sum((g.square().sum() for g in gradient), torch.tensor(0.0, dtype=torch.float64)))
    with torch.no_grad():
        for parameter, g in zip(parameters, gradient, strict=True):
            scale = parameter.norm() / g.norm() if relative else 1.0 / total
            parameter.add_(rho * scale * g)
        return float(nn.functional.cross_entropy(double(images)[1], labels) - loss)


def test_the_curve_is_the_definition(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    values = sharpness(model, lambda: batches_of(data, 17))
    for rho in RHO_CURVE:
        assert values[sharpness_name(rho)] == pytest.approx(
            by_hand(model, data, rho, relative=True), rel=2e-3, abs=2e-7
        )
    assert values["sharpness_absolute"] == pytest.approx(by_hand(model, data, RHO_ABSOLUTE, relative=False), rel=1e-3)
    assert values["sharpness"] == values[sharpness_name(5e-4)]


def test_the_batch_size_does_not_matter(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    one, many = [sharpness(model, lambda size=size: batches_of(data, size)) for size in (64, 5)]
    assert one == pytest.approx(many, rel=1e-3, abs=1e-6)


def test_weights_flags_and_mode_come_back(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers().train()
    model.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sharpness(model, lambda: batches_of(data, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model.first.weight.requires_grad
    assert model.second.weight.requires_grad


def test_relative_sharpness_does_not_see_a_rescaling_between_layers(data: tuple[Tensor, Tensor]) -> None:
    """relu(a W1 x) W2 / a is the same function for every a > 0; only absolute steps tell them apart."""

    class Relu(TwoLayers):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.relu(self.first(images))
            return features, self.second(features)

    plain, rescaled = Relu(), Relu()
    with torch.no_grad():
        rescaled.first.weight.mul_(8)
        rescaled.first.bias.mul_(8)
        rescaled.second.weight.div_(8)
    one, two = [sharpness(model, lambda: batches_of(data, 64)) for model in (plain, rescaled)]
    assert two["sharpness_rho_0.01"] == pytest.approx(one["sharpness_rho_0.01"], rel=1e-3)
    assert two["sharpness_absolute"] != pytest.approx(one["sharpness_absolute"], rel=0.1)


def test_a_loss_that_is_not_finite_is_refused(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    with torch.no_grad():
        model.second.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="sharpness is not defined"):
        sharpness(model, lambda: batches_of(data, 64))
