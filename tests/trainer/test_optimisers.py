"""Sharpness-aware steps and averaged weights, alone and in the trainer."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim.averaging import WeightAverage, recompute_batch_norm
from repsim.config import OptimConfig, TrialConfig
from repsim.errors import NonFiniteLossError
from repsim.optimisation import SAM_RHO, ascent, at_worst_neighbour
from repsim.trainer import Trainer
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]
Named = list[tuple[str, nn.Parameter]]
WRAPPERS: dict[str, dict[str, object]] = {
    "sam": {"optim.sam": "sam"},
    "asam": {"optim.sam": "asam"},
    "ema": {"optim.average": "ema"},
    "swa": {"optim.average": "swa", "optim.swa_start": 0.4},
    "swa, running statistics": {"optim.average": "swa", "optim.swa_start": 0.4, "optim.batch_norm": "train"},
    "sam, ema": {"optim.sam": "sam", "optim.average": "ema", "optim.batch_norm": "train"},
}


class Small(nn.Module):
    """A linear layer, a batch norm, and a part that does not matter to the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm, self.unused = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(2, 2)

    def forward(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.layer(rows))
        return normed


def with_gradients() -> tuple[Small, Named]:
    model = Small().train()
    rows = torch.randn(8, 6)
    (model(rows) * rows[:, :4]).sum().backward()
    return model, list(model.named_parameters())


def length(parts: list[Tensor]) -> float:
    return float(torch.cat([part.flatten().double() for part in parts]).norm())


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_sams_step_is_rho_long_and_climbs(rho: float) -> None:
    _, named = with_gradients()
    step = ascent(named, "sam", rho)
    assert length(step) == pytest.approx(rho, abs=1e-6)
    gradient = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for _, p in named])
    cosine = torch.cosine_similarity(gradient, torch.cat([part.flatten() for part in step]), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-6)


def test_asams_step_is_rho_long_where_weights_are_one() -> None:
    weight, bias = nn.Parameter(torch.linspace(-3.0, 1.0, 7)), nn.Parameter(torch.linspace(2.0, 5.0, 3))
    (weight.sin().sum() * bias.cos().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    named = [("layer.weight", weight), ("layer.bias", bias)]
    scale = weight.detach().abs() + 0.01
    on_weight, on_bias = ascent(named, "asam", 0.5)
    assert length([on_weight / scale, on_bias]) == pytest.approx(0.5, abs=1e-6)
    assert length([on_weight, on_bias]) != pytest.approx(0.5, rel=0.05)
    by_hand = torch.cat([scale**2 * weight.grad, bias.grad])
    cosine = torch.cosine_similarity(by_hand, torch.cat([on_weight, on_bias]), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-6)


def test_asam_does_not_see_a_rescaling_of_the_weights() -> None:
    """f(w) = g(w / s) has the same relative worst step for every s, up to the 0.01 that keeps zeros moving."""
    steps = []
    for size in (1.0, 1000.0):
        weight = nn.Parameter(size * torch.linspace(100.0, 200.0, 5))
        (weight / size).sin().sum().backward()
        steps.append(ascent([("weight", weight)], "asam", 0.5)[0] / size)
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=0.0)


def test_without_a_gradient_there_is_no_worse_neighbour() -> None:
    assert length(ascent(list(Small().named_parameters()), "sam", 0.05)) == 0.0


@pytest.mark.parametrize("kind", ["sam", "asam"])
def test_weights_and_running_statistics_come_back_bit_for_bit(kind: str) -> None:
    model, named = with_gradients()
    frozen = nn.BatchNorm1d(4).eval()
    model.add_module("frozen", frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def halfway() -> None:
        with at_worst_neighbour(model, named, OptimConfig(sam=kind)):  # type: ignore[arg-type]
            assert not torch.equal(model.layer.weight, before["layer.weight"])
            model(torch.randn(8, 6))
            assert torch.equal(model.norm.running_mean, before["norm.running_mean"])
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.randn(8, 6))
    assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
    assert frozen.track_running_stats
    assert not frozen.training


def test_the_distance_has_a_default_for_each_kind() -> None:
    assert SAM_RHO == {"sam": 0.05, "asam": 0.5}
    model, named = with_gradients()
    before = [p.detach().clone() for _, p in named]
    for config, rho in ((OptimConfig(sam="sam"), 0.05), (OptimConfig(sam="sam", sam_rho=0.3), 0.3)):
        with at_worst_neighbour(model, named, config):
            moved = length([p.detach() - was for (_, p), was in zip(named, before, strict=True)])
        assert moved == pytest.approx(rho, rel=1e-4)


def path_of(n: int) -> list[Tensor]:
    return [torch.randn(3, 2, generator=torch.Generator().manual_seed(step)) for step in range(n)]


def averaged(config: OptimConfig, path: list[Tensor]) -> tuple[nn.Linear, WeightAverage]:
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = WeightAverage(model, config, len(path))
    for step, weight in enumerate(path):
        with torch.no_grad():
            model.weight.copy_(weight)
        average.update(step)
    return model, average


def test_swa_is_the_mean_of_the_last_steps() -> None:
    path = path_of(12)
    model, average = averaged(OptimConfig(average="swa", swa_start=0.75), path)
    assert average.install()
    torch.testing.assert_close(model.weight.detach(), torch.stack(path[9:]).mean(0))
    average.remove()
    assert torch.equal(model.weight, path[-1])


def test_ema_follows_its_recursion() -> None:
    path = path_of(40)
    model, average = averaged(OptimConfig(average="ema", ema_decay=0.7), path)
    value = torch.ones(3, 2)
    for step, weight in enumerate(path, start=1):
        decay = min(0.7, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * weight
    assert average.install()
    torch.testing.assert_close(model.weight.detach(), value)


def test_an_average_that_has_not_begun_changes_nothing() -> None:
    model, average = averaged(OptimConfig(average="swa", swa_start=0.99), path_of(1))
    assert average.install()
    late = WeightAverage(model, OptimConfig(average="swa", swa_start=0.5), 10)
    late.update(0)
    before = model.weight.detach().clone()
    assert not late.install()
    late.remove()
    assert torch.equal(model.weight, before)


def test_no_average_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match=r"nothing to average with optim\.average: none"):
        WeightAverage(nn.Linear(2, 2), OptimConfig(), 10)


def test_batch_norm_is_recomputed_for_the_weights_as_they_are() -> None:
    model = Small().train()
    frozen = nn.BatchNorm1d(6).eval()
    model.add_module("frozen", frozen)
    batches = [torch.randn(8, 6, generator=torch.Generator().manual_seed(k)) + k for k in range(3)]
    with torch.no_grad():
        outputs = [model.layer(batch) for batch in batches]
    model(torch.full((8, 6), 100.0))
    recompute_batch_norm(model, iter(batches))
    torch.testing.assert_close(model.norm.running_mean, torch.stack([out.mean(0) for out in outputs]).mean(0))
    torch.testing.assert_close(model.norm.running_var, torch.stack([out.var(0) for out in outputs]).mean(0))
    assert model.norm.momentum == 0.1
    assert torch.equal(frozen.running_mean, torch.zeros(6))  # type: ignore[arg-type]


def finished(config: TrialConfig, workspace: Workspace, *, break_after: int | None = None) -> Trainer:
    trainer = Trainer(config, workspace=workspace)
    while not trainer.done:
        if len(trainer.epochs) == break_after:
            buffer = io.BytesIO()
            torch.save(trainer.state_dict(), buffer)
            buffer.seek(0)
            trainer = Trainer(config, workspace=workspace)
            trainer.load_state_dict(torch.load(buffer, weights_only=True))
        trainer.step()
    return trainer


def same(a: Trainer, b: Trainer) -> bool:
    one, other = a.model.state_dict(), b.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_changes_the_result_repeats_itself_and_resumes(
    wrapper: str, configure: Configure, workspace: Workspace
) -> None:
    flat = {"method": "repsim", "optim.epochs": 3, **WRAPPERS[wrapper]}
    whole = finished(configure(**flat), workspace)
    assert same(whole, finished(configure(**flat), workspace, break_after=2))
    without = {k: v for k, v in flat.items() if k not in ("optim.sam", "optim.average", "optim.swa_start")}
    plain = finished(configure(**without), workspace)
    assert not same(whole, plain)
    assert whole.finish().values["val_nll"] != plain.finish().values["val_nll"]


def test_what_is_measured_and_kept_is_the_average(configure: Configure, workspace: Workspace) -> None:
    """Training goes on from the last weights: its losses are those of training without an average."""
    flat = {"optim.epochs": 3, "optim.lr": 0.01, "checkpoint": "best"}
    plain = finished(configure(**flat), workspace)
    swa = finished(configure(**flat, **{"optim.average": "swa", "optim.swa_start": 0.5}), workspace)
    assert [e.train_loss for e in plain.epochs] == [e.train_loss for e in swa.epochs]
    assert plain.epochs[0].values == swa.epochs[0].values
    assert all(plain.epochs[k].values["val_nll"] != swa.epochs[k].values["val_nll"] for k in (1, 2))


def test_an_average_of_the_last_weights_alone_is_the_last_weights(configure: Configure, workspace: Workspace) -> None:
    plain = finished(configure(), workspace)
    assert same(plain, finished(configure(**{"optim.average": "ema", "optim.ema_decay": 0.0}), workspace))
    last_step = {"optim.average": "swa", "optim.swa_start": 0.99}
    assert same(plain, finished(configure(**last_step), workspace))


class Counting:
    """A function that counts how often it is called."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: object) -> object:
        self.calls += 1
        return self.function(*args)


def test_sam_asks_the_penalty_twice_and_steps_it_once(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sam, passes in (("none", 1), ("sam", 2)):
        trainer = Trainer(configure(method="repsim", **{"optim.sam": sam}), workspace=workspace)
        assert trainer.penalty is not None
        forward, after_step = Counting(trainer.penalty.forward), Counting(trainer.penalty.after_step)
        monkeypatch.setattr(trainer.penalty, "forward", forward)
        monkeypatch.setattr(trainer.penalty, "after_step", after_step)
        steps = trainer.step().steps
        assert (forward.calls, after_step.calls) == (passes * steps, steps)


def test_a_neighbour_that_is_not_finite_stops_before_the_step(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(**{"optim.sam": "sam", "optim.sam_rho": 1e30}), workspace=workspace)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=r"became (nan|inf) at the worst neighbour of step 1 \(epoch 1\)"):
        trainer.step()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_heads_learn_at_the_adapters_rate(configure: Configure, workspace: Workspace) -> None:
    def rates(method: str, **changes: object) -> set[float]:
        trainer = Trainer(configure(method=method, backbone="test_vit", **changes), workspace=workspace)
        state = trainer.state_dict()["fit"]["optimizer"]  # type: ignore[index]
        return {round(group["peak_lr"] / 3e-4, 6) for group in state["param_groups"]}

    assert rates("full") == {1.0, 10.0}
    assert rates("lora") == {1.0}
    assert rates("lora", **{"optim.head_lr": 6e-4}) == {1.0, 2.0}
