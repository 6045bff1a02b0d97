"""The penalties of weights, feature maps and the source classifier as mathematics; and how they are kept together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from repsim.config import PenaltyConfig
from repsim.penalties import Batch, PenaltyContext, build_penalty
from repsim.penalties.co_tuning import CoTuning
from repsim.penalties.delta import Delta
from repsim.penalties.l2_sp import L2SP
from repsim.penalties.layerwise import LayerWise
from repsim.penalties.lwf import LwF
from repsim.teacher import feature_statistics
from tests.trainer.penalty_tools import SOURCE_CLASSES, context, penalty_of, seeded


class TwoLayers(nn.Module):
    """A kernel, and a layer that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 2, bias=False)
        nn.init.zeros_(self.second.weight)


def l2_sp(module: nn.Module) -> L2SP:
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return L2SP(PenaltyContext(dim=2, n_classes=2, config=PenaltyConfig(), seed=0, pretrained_weights=named))


def held(penalty: L2SP, module: nn.Module) -> Tensor:
    value: Tensor = penalty(Batch(features=torch.zeros(4, 2), backbone=module))
    return value


def test_l2_sp_is_the_relative_distance_of_layers() -> None:
    module = TwoLayers()
    penalty = l2_sp(module)
    size = float((module.first.weight.square().sum() + module.first.bias.square().sum()).detach())
    assert float(held(penalty, module).detach()) == 0.0
    with torch.no_grad():
        module.first.weight += 0.1
        module.second.weight += 0.2
    # two layers; the second started at zero and is measured against its outputs (variance 1/fan_in)
    expected = 2 * (12 * 0.01 / size + 6 * 0.04 / 2)
    value = held(penalty, module)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    value.backward()  # type: ignore[no-untyped-call]
    assert module.first.weight.grad is not None
    torch.testing.assert_close(module.first.weight.grad, torch.full((3, 4), 2 * 2 * 0.1 / size))


def test_l2_sp_leaves_frozen_weights_out() -> None:
    module = TwoLayers()
    module.second.requires_grad_(False)
    penalty = l2_sp(module)
    with torch.no_grad():
        module.second.weight.add_(1.0)
    assert float(held(penalty, module).detach()) == 0.0
    with torch.no_grad():
        module.first.bias.add_(1.0)
    assert float(held(penalty, module).detach()) > 0.1


def test_l2_sp_does_not_change_when_a_layer_is_rescaled() -> None:
    values = []
    for scale in (1.0, 50.0):
        torch.manual_seed(0)
        second = nn.Linear(3, 2, bias=False)
        module = nn.Sequential(nn.Linear(4, 3, bias=False), second)
        with torch.no_grad():
            second.weight.mul_(scale)
        penalty = l2_sp(module)
        with torch.no_grad():
            second.weight.mul_(1.1)
        values.append(float(held(penalty, module).detach()))
    assert values == pytest.approx([2 * 0.01, 2 * 0.01], rel=1e-3)


def test_delta_is_the_mean_of_relative_distances() -> None:
    maps = {"a": seeded(4, 3, 5, 5, seed=1), "b": 10 * seeded(4, 6, 2, 2, seed=2)}
    moved = {"a": maps["a"] * 1.5, "b": maps["b"] * 0.9}
    value = Delta()(Batch(features=torch.zeros(4, 2), maps=moved, teacher_maps=maps))
    assert float(value) == pytest.approx((0.25 + 0.01) / 2, rel=1e-5)
    swapped = Delta()(Batch(features=torch.zeros(4, 2), maps={"a": maps["a"].flip(-1)}, teacher_maps=maps))
    assert float(swapped) > 1.0  # positions count
    with pytest.raises(RuntimeError, match="not given the feature maps it needs"):
        Delta()(Batch(features=torch.zeros(4, 2)))


def test_lwf_is_a_tempered_divergence() -> None:
    given = context(6, temperature=3.0)
    assert given.source_head is not None
    features, teacher = seeded(8, 6, seed=1), seeded(8, 6, seed=2)
    before, now = (
        (linear(rows, given.source_head.weight, given.source_head.bias) / 3.0).softmax(1)
        for rows in (teacher, features)
    )
    divergence = float((before * (before.log() - now.log())).sum(1).mean())
    found = float(LwF(given)(Batch(features=features, teacher=teacher)))
    assert found == pytest.approx(9 * divergence / math.log(SOURCE_CLASSES), rel=1e-4)
    assert float(LwF(given)(Batch(features=teacher, teacher=teacher))) == pytest.approx(0.0, abs=1e-6)


def test_lwf_pulls_harder_at_no_temperature_than_another() -> None:
    """T² keeps the size of the gradient: for high temperatures it stops changing."""
    features, teacher = 0.1 * seeded(8, 6, seed=1), 0.1 * seeded(8, 6, seed=2)
    batch = Batch(features=features, teacher=teacher)
    values = [float(penalty_of("lwf", 6, temperature=t)(batch)) for t in (20.0, 200.0)]
    assert values[0] == pytest.approx(values[1], rel=0.1)


def test_the_source_head_is_neither_trained_nor_saved() -> None:
    for name in ("lwf", "co_tuning"):
        penalty = penalty_of(name)
        assert list(penalty.parameters()) == []
        assert dict(penalty.state_dict()) == {}


def test_co_tuning_draws_towards_the_mean_answer_of_the_class() -> None:
    given = context(6)
    penalty = CoTuning(given)
    assert given.source_head is not None
    assert given.train_features is not None
    assert given.train_labels is not None
    answers = linear(given.train_features, given.source_head.weight, given.source_head.bias).softmax(1)
    for label in range(3):
        torch.testing.assert_close(penalty.relationship[label], answers[given.train_labels == label].mean(0))
    features, labels = seeded(4, 6, seed=1), torch.tensor([0, 2, 2, 1])
    log_q = linear(features, given.source_head.weight, given.source_head.bias).log_softmax(1)
    expected = -(penalty.relationship[labels] * log_q).sum(1).mean() / math.log(SOURCE_CLASSES)
    assert float(penalty(Batch(features=features, labels=labels))) == pytest.approx(float(expected), rel=1e-5)
    wrong = float(penalty(Batch(features=features, labels=(labels + 1) % 3)))
    assert wrong != pytest.approx(float(expected), rel=1e-3)


def test_what_was_not_given_is_named() -> None:
    empty = PenaltyContext(dim=4, n_classes=2, config=PenaltyConfig(), seed=0)
    for name, what in (("rift", "pretrained statistics"), ("lwf", "source head"), ("co_tuning", "source head")):
        with pytest.raises(RuntimeError, match=f"not given the {what} it needs"):
            build_penalty(name, empty)
    batch = Batch(features=seeded(4, 12))
    for name, what in (("repsim", "pretrained features"), ("co_tuning", "labels"), ("l2_sp", "backbone")):
        with pytest.raises(RuntimeError, match=f"not given the {what} it needs"):
            penalty_of(name)(batch)


def test_layers_have_a_penalty_each_and_count_alike() -> None:
    penalty = build_penalty("repsim", context(12), {"early": 5, "last": 12})
    assert isinstance(penalty, LayerWise)
    last, early = (seeded(8, 12, seed=1), seeded(8, 12, seed=2)), (seeded(8, 5, seed=3), seeded(8, 5, seed=4))
    batch = Batch(
        features=last[0].clone().requires_grad_(),
        teacher=last[1],
        layers={"early": early[0].clone().requires_grad_()},
        teacher_layers={"early": early[1]},
    )
    alone = [
        float(build_penalty("repsim", context(n))(Batch(features=ours, teacher=theirs)))
        for n, (ours, theirs) in ((12, last), (5, early))
    ]
    assert float(penalty(batch).detach()) == pytest.approx(sum(alone) / 2, rel=1e-5)
    before = {name: value.clone() for name, value in penalty.state_dict().items()}
    penalty.after_step()
    penalty.after_epoch()
    maps = [name for name in before if name.endswith("Q")]
    assert sorted(before[name].shape[0] for name in maps) == [5, 12]
    assert all(not torch.equal(before[name], penalty.state_dict()[name]) for name in maps)
    assert float(penalty(batch).detach()) < sum(alone) / 2


def test_the_last_layer_alone_is_the_plain_penalty() -> None:
    assert not isinstance(build_penalty("hcs", context(12), {"last": 12}), LayerWise)
    assert not isinstance(build_penalty("rift", context(12), {}), LayerWise)
    with pytest.raises(KeyError, match="hcx"):
        build_penalty("hcx", context(12))


def test_statistics_are_accumulated_in_double_precision() -> None:
    """A mean a thousand times the spread, more rows than a chunk: float32 sums would lose the covariance."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(9000, 3)) * [1.0, 2.0, 0.5] + 3000.0).astype(np.float32)
    found = feature_statistics(features)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(exact.T), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean.numpy(), exact.mean(0), rtol=1e-7)
    naive = (features**2).mean(0, dtype=np.float32) - features.mean(0, dtype=np.float32) ** 2
    assert np.abs(naive - exact.var(0)).max() > 0.1
    assert float(feature_statistics(features[:1]).covariance.abs().max()) == 0.0
