"""What every registered method promises. A new method is tested by being registered."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from repsim.catalogue import ADAPTERS, parse_method
from repsim.config import TrialConfig
from repsim.fitting import batch_plan
from repsim.records import STANDARD_METRICS, TrialResult
from repsim.trainer import Trainer
from repsim.workspace import Workspace
from tests.trainer.cases import IN_FULL, SMOKE

Configure = Callable[..., TrialConfig]
TIMES = ("seconds", "images_per_second", "peak_memory_bytes")
every_method = pytest.mark.parametrize(("method", "backbone"), IN_FULL)


def finished(config: TrialConfig, workspace: Workspace) -> Trainer:
    """Run every epoch."""
    trainer = Trainer(config, workspace=workspace)
    while not trainer.done:
        trainer.step()
    return trainer


def numbers(result: TrialResult) -> dict[str, float]:
    """Every value but the ones that depend on the machine's mood."""
    return {name: value for name, value in result.values.items() if not any(word in name for word in TIMES)}


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclass(frozen=True)
class Run:
    """A whole training: weights before and after it, the names of those that may move, losses and verdict."""

    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    moves: set[str]
    losses: list[float]
    result: TrialResult


_RUNS: dict[str, Run] = {}


def first_run(config: TrialConfig, workspace: Workspace) -> Run:
    """Trained once, and looked at by every test of the contract."""
    key = json.dumps(config.flat())
    if key not in _RUNS:
        trainer = Trainer(config, workspace=workspace)
        before = weights(trainer)
        moves = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
        while not trainer.done:
            trainer.step()
        losses = [epoch.train_loss for epoch in trainer.epochs]
        _RUNS[key] = Run(before, weights(trainer), moves, losses, trainer.finish())
    return _RUNS[key]


@every_method
def test_answers_every_metric_and_repeats_itself(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    config = configure(method=method, backbone=backbone)
    first = first_run(config, workspace)
    second = finished(config, workspace)
    assert set(first.result.values) == set(STANDARD_METRICS)
    assert numbers(first.result) == numbers(second.finish())
    assert same(first.after, weights(second))
    assert first.losses == [e.train_loss for e in second.epochs]
    assert first.result.facts["n_train"] == 30
    columns = first.result.predictions["test"]
    assert len(columns["image"]) == first.result.facts["n_test"]


@every_method
def test_another_seed_gives_other_numbers(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    first = first_run(configure(method=method, backbone=backbone), workspace)
    second = finished(configure(method=method, backbone=backbone, seed=1), workspace)
    converged = ADAPTERS[parse_method(method).adapter].trains_backbone is False
    assert same(first.after, weights(second)) == converged


@every_method
def test_a_checkpoint_continues_bit_for_bit(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    config = configure(method=method, backbone=backbone)
    interrupted = Trainer(config, workspace=workspace)
    interrupted.step()
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed = Trainer(config, workspace=workspace)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    while not resumed.done:
        resumed.step()
    whole = first_run(config, workspace)
    assert same(whole.after, weights(resumed))
    assert numbers(whole.result) == numbers(resumed.finish())


@every_method
def test_what_is_frozen_stays_bit_identical(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    run = first_run(configure(method=method, backbone=backbone), workspace)
    changed = {name for name in run.before if not torch.equal(run.before[name], run.after[name])}
    assert changed <= run.moves
    trains_backbone = ADAPTERS[parse_method(method).adapter].trains_backbone
    assert any(name.startswith("backbone.") for name in changed) == trains_backbone
    assert any(name.startswith("head.") for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "backbone"), SMOKE)
def test_every_other_pair_takes_two_steps(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    short = {"optim.epochs": 1, "optim.batch_size": 16}
    trainer = Trainer(configure(method=method, backbone=backbone, **short), workspace=workspace)
    before = weights(trainer)
    moves = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    epoch = trainer.step()
    assert epoch.steps == 2
    assert epoch.train_penalty is not None
    assert math.isfinite(epoch.train_loss)
    assert math.isfinite(epoch.train_penalty)
    changed = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed <= moves
    assert any(name.startswith("backbone.") for name in changed)


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
