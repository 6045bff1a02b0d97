"""What every registered penalty promises, on full finetuning of two tiny networks. Tested by being registered."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from repsim.catalogue import ADAPTERS, PENALTIES, PenaltyInfo
from repsim.config import TrialConfig
from repsim.errors import RequestError
from repsim.fitting import GradientFit
from repsim.penalties import Batch, Penalty
from repsim.trainer import Trainer, check_splits
from repsim.workspace import Workspace
from tests.trainer.cases import FOR_TRANSFORMERS, NEEDS_A_CLASSIFIER
from tests.trainer.penalty_tools import on, penalty_of, seeded, weights_with_classifier

CONVNET, TRANSFORMER = "test_efficientnet", "test_vit"
SIDES = {CONVNET: 32, TRANSFORMER: 160}
OTHER = "hcs"
OF_FEATURES = [name for name, info in PENALTIES.items() if "teacher_features" in info.needs]
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)
every_case = pytest.mark.parametrize(("penalty", "backbone"), [(p, b) for b in SIDES for p in PENALTIES])
slow_on_the_transformer = pytest.mark.parametrize(
    ("penalty", "backbone"),
    [(p, CONVNET) for p in PENALTIES] + [pytest.param(p, TRANSFORMER, marks=pytest.mark.slow) for p in PENALTIES],
)


@dataclass(frozen=True)
class Run:
    """What a training run left behind."""

    losses: tuple[float, ...]
    penalties: tuple[float | None, ...]
    weights: Mapping[str, Tensor]

    def equals(self, other: Run) -> bool:
        """Bit for bit, but for the penalty's value."""
        return self.losses == other.losses and all(
            torch.equal(value, other.weights[name]) for name, value in self.weights.items()
        )


class Bench:
    """Runs each configuration once and remembers it."""

    def __init__(self, configure: Callable[..., TrialConfig], workspace: Workspace, folder: Path) -> None:
        self._configure, self.workspace, self._folder = configure, workspace, folder
        self._runs: dict[TrialConfig, Run] = {}

    def config(self, backbone: str, method: str, **flat: object) -> TrialConfig:
        """A few epochs of four steps, fast enough to move."""
        base: dict[str, object] = {
            "backbone": backbone,
            "backbone.weights": str(weights_with_classifier(backbone, self._folder)),
            "data.image_size": SIDES[backbone],
            "optim.lr": 1e-3,
            "optim.epochs": 3 if backbone == CONVNET else 2,
        }
        return self._configure(method=method, **(base | flat))

    def trainer(self, config: TrialConfig) -> Trainer:
        return Trainer(config, workspace=self.workspace)

    def run(self, config: TrialConfig, *, again: bool = False) -> Run:
        """The run of ``config``; ``again`` repeats it."""
        if again or config not in self._runs:
            self._runs[config] = outcome(self.trainer(config))
        return self._runs[config]


@pytest.fixture(scope="module")
def bench(
    configure: Callable[..., TrialConfig], workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    return Bench(configure, workspace, tmp_path_factory.mktemp("weights"))


def outcome(trainer: Trainer) -> Run:
    """Train what is left of the epochs."""
    while not trainer.done:
        trainer.step()
    return Run(
        losses=tuple(epoch.train_loss for epoch in trainer.epochs),
        penalties=tuple(epoch.train_penalty for epoch in trainer.epochs),
        weights={name: value.clone() for name, value in trainer.model.state_dict().items()},
    )


def a_batch(trainer: Trainer, n: int = 8) -> Batch:
    """The penalty's view of the first ``n`` training images."""
    fit = trainer._fit
    assert isinstance(fit, GradientFit)
    fit.prepare_epoch(1)
    trainer.model.train()
    rows = np.arange(n)
    images, labels = fit._inputs(rows, fit._view(1)), fit._labels(rows)
    bf16 = trainer.config.optim.precision == "bf16"
    with fit._feed.watching() as seen, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        features, _ = trainer.model(images)
    return fit._feed.batch(features, labels, rows, images, seen)


def pull(trainer: Trainer, value: Tensor) -> float:
    """Size of the penalty's gradient towards the backbone, relative to the size of the weights: dimensionless."""
    parameters = [p for p in trainer.model.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    squares = [(g.norm() * p.norm()).square() for g, p in zip(gradients, parameters, strict=True) if g is not None]
    return float(torch.stack(squares).sum().sqrt().detach())


@slow_on_the_transformer
def test_other_trials_in_between_change_nothing(penalty: str, backbone: str, bench: Bench) -> None:
    config = bench.config(backbone, penalty)
    first = bench.run(config)
    between = bench.run(bench.config(backbone, OTHER if penalty != OTHER else "rsa", seed=3))
    assert first.equals(bench.run(config, again=True))
    assert not first.equals(between)
    assert all(value is not None and math.isfinite(value) for value in first.penalties)


@slow_on_the_transformer
def test_another_seed_gives_another_run(penalty: str, backbone: str, bench: Bench) -> None:
    one, two = (bench.run(bench.config(backbone, penalty, seed=seed)) for seed in (0, 1))
    assert not one.equals(two)
    assert one.penalties != two.penalties


@slow_on_the_transformer
def test_strength_zero_is_full_finetuning(penalty: str, backbone: str, bench: Bench) -> None:
    alone = bench.run(bench.config(backbone, "full"))
    assert alone.equals(bench.run(bench.config(backbone, penalty, strength=0.0)))
    assert not alone.equals(bench.run(bench.config(backbone, penalty)))


@slow_on_the_transformer
def test_more_strength_leaves_less_of_the_penalty(penalty: str, backbone: str, bench: Bench) -> None:
    longer = {} if backbone == CONVNET else {"optim.epochs": 6}
    free, held = (bench.run(bench.config(backbone, penalty, strength=s, **longer)) for s in (0.0, 1.0))
    assert free.penalties[-1] is not None
    assert held.penalties[-1] is not None
    assert held.penalties[-1] < 0.9 * free.penalties[-1]


@every_case
def test_a_checkpoint_continues_bit_for_bit(penalty: str, backbone: str, bench: Bench) -> None:
    config = bench.config(backbone, penalty)
    interrupted = bench.trainer(config)
    interrupted.step()
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed = bench.trainer(config)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    found = outcome(resumed)
    assert found.equals(bench.run(config))
    assert found.penalties == bench.run(config).penalties


def declared_rightly(info: PenaltyInfo, trainer: Trainer) -> bool:
    """Whether value and gradient at the pretrained weights are zero exactly where the catalogue says so."""
    assert trainer.penalty is not None
    value = trainer.penalty(a_batch(trainer))
    zero = abs(float(value.detach())) < 1e-6, pull(trainer, value) < 1e-3
    return zero == (info.zero_at_start, info.gradient_zero_at_start)


@every_case
def test_the_declaration_of_zero_at_start_holds(penalty: str, backbone: str, bench: Bench) -> None:
    info = PENALTIES[penalty]
    trainer = bench.trainer(bench.config(backbone, penalty))
    assert declared_rightly(info, trainer)
    assert not declared_rightly(replace(info, zero_at_start=not info.zero_at_start), trainer)
    assert not declared_rightly(replace(info, gradient_zero_at_start=not info.gradient_zero_at_start), trainer)


@every_case
def test_bf16_gives_a_penalty_in_fp32(penalty: str, backbone: str, bench: Bench) -> None:
    trainer = bench.trainer(bench.config(backbone, penalty, **{"optim.precision": "bf16"}))
    assert trainer.penalty is not None
    batch = a_batch(trainer)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cast = trainer.penalty(batch)
    with torch.no_grad():
        plain = trainer.penalty(batch)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)
    assert math.isfinite(float(plain))


def constant(batch: Batch) -> Batch:
    """The same batch, every image alike: what a collapsed network says. Leaves carry the gradient."""

    def flat(rows: Tensor) -> Tensor:
        return rows[:1].expand_as(rows).detach().clone().requires_grad_()

    maps = {name: {key: flat(rows) for key, rows in getattr(batch, name).items()} for name in ("layers", "maps")}
    return replace(batch, features=flat(batch.features), layers=maps["layers"], maps=maps["maps"])


@every_case
def test_a_collapsed_network_gives_finite_numbers(penalty: str, backbone: str, bench: Bench) -> None:
    trainer = bench.trainer(bench.config(backbone, penalty))
    assert trainer.penalty is not None
    for teacher_too in (False, True):
        batch = constant(a_batch(trainer))
        if teacher_too and batch.teacher is not None:
            batch = replace(batch, teacher=batch.teacher[:1].expand_as(batch.teacher).clone())
        value = trainer.penalty(batch)
        leaves = [batch.features, *batch.maps.values()]
        gradients = torch.autograd.grad(value, [x for x in leaves if x.requires_grad], allow_unused=True)
        assert math.isfinite(float(value.detach()))
        assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
        trainer.penalty.after_step()
    trainer.penalty.after_epoch()
    assert all(bool(torch.isfinite(value).all()) for value in trainer.penalty.state_dict().values())


@every_penalty
def test_the_smallest_batch_is_enough(penalty: str, bench: Bench) -> None:
    least = PENALTIES[penalty].min_batch
    config = bench.config(CONVNET, penalty)
    trainer = bench.trainer(config)
    assert trainer.penalty is not None
    with torch.no_grad():
        for parameter in trainer.model.backbone.parameters():  # away from the pretrained weights, where all is zero
            parameter.add_(seeded(*parameter.shape), alpha=0.1)
    value = trainer.penalty(a_batch(trainer, max(2, least)))
    assert float(value.detach()) > 0
    assert math.isfinite(pull(trainer, value))
    check_splits(config, {"train": least, "val": 4, "test": 4})
    with pytest.raises(RequestError, match=rf"train split: holds {least - 1} images; allowed: at least {least}"):
        check_splits(config, {"train": least - 1, "val": 4, "test": 4})


@pytest.mark.parametrize("penalty", OF_FEATURES)
def test_a_penalty_is_dimensionless(penalty: str) -> None:
    features, teacher = seeded(16, 24, seed=1), seeded(16, 24, seed=2)
    unit = on(penalty_of(penalty, 24), features, teacher)
    assert 0.05 < float(unit) < 5.0
    if "source_head" not in PENALTIES[penalty].needs:  # logits are what they are
        scaled = on(penalty_of(penalty, 24), 1000 * features, 1000 * teacher)
        assert float(scaled) == pytest.approx(float(unit), rel=1e-4)


@pytest.mark.parametrize("penalty", [name for name in OF_FEATURES if PENALTIES[name].zero_at_start])
def test_fifty_steps_with_a_frozen_model_leave_the_penalty_at_zero(penalty: str) -> None:
    """The trap of learning from rounding noise, as an adaptive optimiser would."""
    held: Penalty = penalty_of(penalty, 64)
    generator = torch.Generator().manual_seed(2)
    pool = torch.rand(200, 64, generator=generator)
    for _ in range(50):
        teacher = pool[torch.randint(0, 200, (32,), generator=generator).unique()]  # type: ignore[no-untyped-call]
        value = on(held, teacher.clone().requires_grad_(), teacher)
        held.after_step()
    held.after_epoch()
    assert float(value.detach().abs()) < 1e-6


LAYERWISE = [name for name, info in PENALTIES.items() if info.layerwise]


@pytest.mark.parametrize(
    ("penalty", "backbone"),
    [(p, CONVNET) for p in LAYERWISE] + [("repsim", TRANSFORMER)],
)
def test_several_layers_are_held_together(penalty: str, backbone: str, bench: Bench) -> None:
    config = bench.config(backbone, penalty, **{"penalty.layers": "blocks.1,blocks.4"})
    if "feature_maps" not in PENALTIES[penalty].needs:
        config = bench.config(backbone, penalty, **{"penalty.layers": "all"})
    run = bench.run(config)
    assert all(value is not None and math.isfinite(value) for value in run.penalties)
    assert not run.equals(bench.run(bench.config(backbone, penalty)))
    trainer = bench.trainer(config)
    assert declared_rightly(PENALTIES[penalty], trainer)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "repsim", "penalty.map": "procrustes", "penalty.scale": True},
        {"method": "repsim", "penalty.map": "cayley", "penalty.center": False},
        {"method": "repsim", "penalty.map": "low_rank", "penalty.layers": "all"},
        {"method": "hcs", "penalty.estimator": "debiased", "penalty.queue": 16, "penalty.margin": 0.01},
        {"method": "rift", "penalty.q": "learned", "penalty.momentum": 0.5},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_options_survive_a_checkpoint(settings: dict[str, object], bench: Bench) -> None:
    flat = {key: value for key, value in settings.items() if key != "method"}
    config = bench.config(CONVNET, str(settings["method"]), **flat, **{"optim.epochs": 6})
    interrupted = bench.trainer(config)
    for _ in range(5):
        interrupted.step()
    state = copy.deepcopy(interrupted.state_dict())
    whole = outcome(interrupted)
    resumed = bench.trainer(config)
    resumed.load_state_dict(state)
    found = outcome(resumed)
    assert found.equals(whole)
    assert found.penalties == whole.penalties
    plain = bench.config(CONVNET, str(settings["method"]), **{"optim.epochs": 6})
    assert not whole.equals(bench.run(plain))


def test_a_batch_says_what_it_can_hold() -> None:
    assert {field.name for field in fields(Batch)} == {
        "features",
        "teacher",
        "labels",
        "backbone",
        "layers",
        "teacher_layers",
        "maps",
        "teacher_maps",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        (f"{adapter}+{penalty}", TRANSFORMER if adapter in FOR_TRANSFORMERS else CONVNET)
        for adapter, info in ADAPTERS.items()
        for penalty in sorted(NEEDS_A_CLASSIFIER)
        if info.trains_backbone and adapter != "full"
    ],
)
def test_a_source_classifier_serves_every_adapter(method: str, backbone: str, bench: Bench) -> None:
    config = bench.config(backbone, method, **{"optim.epochs": 1, "optim.batch_size": 16})
    run = bench.run(config)
    assert run.penalties[0] is not None
    assert math.isfinite(run.penalties[0])
    assert not run.equals(bench.run(config.model_copy(update={"strength": 0.0})))
