"""What every registered method promises. A new method is tested by being registered."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from repsim.catalogue import ADAPTERS, PENALTIES, PenaltyInfo, method_names, parse_method
from repsim.config import PenaltyConfig, TrialConfig
from repsim.fitting import batch_plan
from repsim.penalties import Penalty, build_penalty
from repsim.records import METRICS
from repsim.trainer import Trainer
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]
TIMES = ("seconds", "images_per_second", "peak_memory_bytes")
every_method = pytest.mark.parametrize("method", method_names())
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)


def finished(config: TrialConfig, workspace: Workspace) -> Trainer:
    """Run every epoch."""
    trainer = Trainer(config, workspace=workspace)
    while not trainer.done:
        trainer.step()
    return trainer


def numbers(trainer: Trainer) -> dict[str, float]:
    """Every value but the ones that depend on the machine's mood."""
    values = trainer.finish().values
    return {name: value for name, value in values.items() if not any(word in name for word in TIMES)}


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@every_method
def test_answers_every_metric_and_repeats_itself(method: str, configure: Configure, workspace: Workspace) -> None:
    first = finished(configure(method=method), workspace)
    second = finished(configure(method=method), workspace)
    result = first.finish()
    assert set(result.values) == set(METRICS)
    assert numbers(first) == numbers(second)
    assert same(weights(first), weights(second))
    assert [e.train_loss for e in first.epochs] == [e.train_loss for e in second.epochs]
    assert result.facts["n_train"] == 30
    columns = result.predictions["test"]
    assert len(columns["image"]) == result.facts["n_test"]


@every_method
def test_another_seed_gives_other_numbers(method: str, configure: Configure, workspace: Workspace) -> None:
    first, second = (finished(configure(method=method, seed=seed), workspace) for seed in (0, 1))
    converged = ADAPTERS[parse_method(method).adapter].trains_backbone is False
    assert same(weights(first), weights(second)) == converged


@every_method
def test_a_checkpoint_continues_bit_for_bit(method: str, configure: Configure, workspace: Workspace) -> None:
    config = configure(method=method, **{"optim.epochs": 3})
    whole = finished(config, workspace)
    interrupted = Trainer(config, workspace=workspace)
    interrupted.step()
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed = Trainer(config, workspace=workspace)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    while not resumed.done:
        resumed.step()
    assert same(weights(whole), weights(resumed))
    assert numbers(whole) == numbers(resumed)


@every_method
def test_what_is_frozen_stays_bit_identical(method: str, configure: Configure, workspace: Workspace) -> None:
    config = configure(method=method)
    trainer = Trainer(config, workspace=workspace)
    before = weights(trainer)
    moves = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    while not trainer.done:
        trainer.step()
    after = weights(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= moves
    trains_backbone = ADAPTERS[config.parsed_method.adapter].trains_backbone
    assert any(name.startswith("backbone.") for name in changed) == trains_backbone
    assert any(name.startswith("head.") for name in changed)


@every_penalty
def test_strength_zero_is_the_adapter_alone(penalty: str, configure: Configure, workspace: Workspace) -> None:
    alone = finished(configure(method="full"), workspace)
    held = finished(configure(method=penalty, strength=0.0), workspace)
    pulled = finished(configure(method=penalty, strength=1.0), workspace)
    assert [e.train_loss for e in alone.epochs] == [e.train_loss for e in held.epochs]
    assert same(weights(alone), weights(held))
    assert not same(weights(alone), weights(pulled))


def declared_rightly(info: PenaltyInfo, penalty: Penalty) -> bool:
    """Whether value and gradient at the pretrained weights are zero exactly where the catalogue says so."""
    teacher = torch.randn(16, penalty.dim, generator=torch.Generator().manual_seed(0))
    features = teacher.clone().requires_grad_()
    value = penalty(features, teacher)
    value.backward()
    assert features.grad is not None
    value_is_zero = float(value.detach().abs()) < 1e-6
    gradient_is_zero = float(features.grad.norm()) < 1e-5
    return (value_is_zero, gradient_is_zero) == (info.zero_at_start, info.gradient_zero_at_start)


@every_penalty
def test_the_declaration_of_zero_at_start_holds(penalty: str) -> None:
    info = PENALTIES[penalty]
    assert declared_rightly(info, build_penalty(penalty, 24, PenaltyConfig()))
    assert not declared_rightly(
        replace(info, zero_at_start=not info.zero_at_start), build_penalty(penalty, 24, PenaltyConfig())
    )
    wrong = replace(info, gradient_zero_at_start=not info.gradient_zero_at_start)
    assert not declared_rightly(wrong, build_penalty(penalty, 24, PenaltyConfig()))


@every_penalty
def test_a_penalty_is_dimensionless(penalty: str) -> None:
    generator = torch.Generator().manual_seed(1)
    features, teacher = (torch.randn(16, 24, generator=generator) for _ in range(2))
    unit = build_penalty(penalty, 24, PenaltyConfig())(features, teacher)
    scaled = build_penalty(penalty, 24, PenaltyConfig())(1000 * features, 1000 * teacher)
    assert float(scaled) == pytest.approx(float(unit), rel=1e-4)
    assert 0.05 < float(unit) < 5.0


@every_penalty
def test_a_penalty_stays_fp32_under_autocast(penalty: str) -> None:
    generator = torch.Generator().manual_seed(1)
    features, teacher = (torch.randn(16, 24, generator=generator) for _ in range(2))
    plain = build_penalty(penalty, 24, PenaltyConfig())(features, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = build_penalty(penalty, 24, PenaltyConfig())(features, teacher)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


@every_penalty
def test_fifty_steps_with_a_frozen_model_leave_the_penalty_at_zero(penalty: str) -> None:
    """The trap of training Q with Adam: rounding noise becomes full steps."""
    info = PENALTIES[penalty]
    if not info.zero_at_start:
        pytest.skip("does not start at zero")
    held = build_penalty(penalty, 64, PenaltyConfig())
    generator = torch.Generator().manual_seed(2)
    pool = torch.rand(200, 64, generator=generator)
    for _ in range(50):
        teacher = pool[torch.randint(0, 200, (32,), generator=generator)]
        value = held(teacher.clone().requires_grad_(), teacher)
        held.after_step()
    held.after_epoch()
    assert float(value.detach().abs()) < 1e-6


def test_a_linear_probe_keeps_similarity_at_one(configure: Configure, workspace: Workspace) -> None:
    values = finished(configure(method="linear_probe"), workspace).finish().values
    for split in ("val", "test"):
        assert abs(values[f"{split}_cka"] - 1.0) <= 1e-6
    moved = finished(configure(method="full"), workspace).finish().values
    assert abs(moved["val_cka"] - 1.0) > 1e-3


@pytest.mark.parametrize(
    ("n", "batch", "sizes"), [(32, 8, [8] * 4), (30, 8, [8, 8, 8, 6]), (33, 8, [8, 8, 8, 9]), (3, 8, [3])]
)
def test_the_batch_plan_covers_everything_once(n: int, batch: int, sizes: list[int]) -> None:
    plan = batch_plan(n, batch)
    assert [end - start for start, end in plan] == sizes
    assert [i for start, end in plan for i in range(start, end)] == list(range(n))
