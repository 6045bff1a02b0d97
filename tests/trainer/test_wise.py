"""The line between pretrained and finetuned weights: its arithmetic, its two ends, and what has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from repsim import trainer as trainer_module
from repsim.adapters import REGISTRY as ADAPTERS
from repsim.config import TrialConfig
from repsim.errors import RequestError
from repsim.model import FineTuned, build_model
from repsim.records import FACTS, STANDARD_METRICS, WISE_ALPHAS, EpochResult, Objective, TrialResult
from repsim.seeding import torch_generator
from repsim.trainer import Trainer, train
from repsim.wise import Line, interpolated
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]
COSTS = ("train_seconds", "images_per_second", "peak_memory_bytes", "trainable_parameters")
CLOCKS = {"train_seconds", "overhead_seconds", "evaluation_seconds", "images_per_second", "peak_memory_bytes"}


def test_the_ends_are_exact_and_the_middle_is_the_mean() -> None:
    start = {"w": torch.tensor([0.1, 1e8, -3.0]), "seen": torch.tensor(2), "running_var": torch.tensor([1.0])}
    end = {"w": torch.tensor([0.7, 1.0, 1e-8]), "seen": torch.tensor(9), "running_var": torch.tensor([3.0])}
    for alpha, exact in ((0.0, start), (1.0, end)):
        found = interpolated(start, end, alpha)
        assert all(torch.equal(found[name], exact[name]) for name in ("w", "running_var"))
    half = interpolated(start, end, 0.5)
    torch.testing.assert_close(half["w"], (start["w"] + end["w"]) / 2)
    assert half["running_var"].item() == 2.0
    assert half["seen"].item() == 9


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_the_line_does_not_go_on(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .*, and the line goes from 0 to 1"):
        interpolated({}, {}, alpha)


def test_two_architectures_have_no_line() -> None:
    with pytest.raises(ValueError, match="no line between two architectures: b differs"):
        interpolated({"a": torch.zeros(2), "b": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(3)}, 0.5)


def prepared(config: TrialConfig, workspace: Workspace) -> FineTuned:
    """A model as training starts from it."""
    model = build_model(config, workspace.backbone(config), 3)
    ADAPTERS[config.parsed_method.adapter].prepare(model, config.adapter, torch_generator(config.seed, "adapter"))
    return model


def disturbed(config: TrialConfig, workspace: Workspace) -> FineTuned:
    """The same, as if it had been trained: every parameter that moves has moved."""
    model, generator = prepared(config, workspace), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return model.eval()


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("full", "test_efficientnet"), ("lora", "test_efficientnet"), ("lora", "test_vit"), ("adaptformer", "test_vit")],
)
def test_an_adapter_is_merged_and_goes_from_the_pretrained_network_to_its_own(
    configure: Configure, workspace: Workspace, method: str, backbone: str
) -> None:
    config = configure(method=method, backbone=backbone)
    start, end = prepared(config, workspace).eval(), disturbed(config, workspace)
    before = copied(end.state_dict())
    line, images = Line(start, end), torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pretrained = build_model(config, workspace.backbone(config), 3).eval().features(images)
        first, last = line.at(0.0).eval().features(images), line.at(1.0).eval().features(images)
        assert torch.equal(first, pretrained)
        torch.testing.assert_close(last, end.features(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(first, last, rtol=1e-3, atol=1e-3)
    whole = end.merged().state_dict()
    at_end = line.at(1.0).state_dict()
    assert set(at_end) == set(whole)
    assert all(torch.equal(at_end[name], whole[name]) for name in whole)
    assert not any("lora" in name for name in at_end)
    begin, half = start.merged().state_dict(), line.at(0.5).state_dict()
    for name, tensor in whole.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(half[name], (begin[name] + tensor) / 2, rtol=1e-5, atol=1e-7)
    after = end.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


class Run(NamedTuple):
    """A finished trial with two points, and its model's state before it was finished."""

    trainer: Trainer
    before: dict[str, Tensor]
    result: TrialResult


@pytest.fixture(scope="module")
def run(configure: Configure, workspace: Workspace) -> Run:
    """Batch norm's statistics move; three points: two on the way, and the end."""
    config = configure(**{"measure.wise": True, "optim.batch_norm": "train", "optim.lr": 1e-3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "WISE_ALPHAS", (0.0, 0.5, 1.0))
        trainer = Trainer(config, workspace=workspace)
        while not trainer.done:
            trainer.step()
        before = copied(trainer.model.state_dict())
        return Run(trainer, before, trainer.finish())


def test_a_trial_answers_the_points_beside_its_own_values(run: Run) -> None:
    points = run.result.derived
    assert [point.alpha for point in points] == [0.0, 0.5, 1.0]
    assert all(set(point.values) == set(STANDARD_METRICS) for point in points)
    assert run.result.facts["not_derived"] == []
    assert set(run.result.facts) <= set(FACTS)
    for point in points:
        assert {name: point.values[name] for name in COSTS} == {name: run.result.values[name] for name in COSTS}
        assert 0 < point.values["evaluation_seconds"] < point.values["overhead_seconds"]
        assert set(point.predictions) == {"val", "test"}
    assert WISE_ALPHAS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_the_end_of_the_line_is_the_trial_bit_for_bit_and_its_model_stays(run: Run) -> None:
    end = run.result.derived[-1].values
    measured = [name for name in STANDARD_METRICS if name not in CLOCKS]
    assert {name: end[name] for name in measured} == {name: run.result.values[name] for name in measured}
    assert run.result.derived[-1].predictions == run.result.predictions
    after = run.trainer.model.state_dict()
    assert all(torch.equal(after[name], run.before[name]) for name in run.before)


def test_the_start_of_the_line_is_the_linear_probe(run: Run, configure: Configure, workspace: Workspace) -> None:
    probe = train(configure(method="linear_probe", **{"optim.batch_norm": "train"}), workspace=workspace)
    start = run.result.derived[0].values
    for split in ("val", "test"):
        assert abs(start[f"{split}_cka"] - 1.0) <= 1e-6
        assert start[f"{split}_accuracy"] == probe.values[f"{split}_accuracy"]
        assert start[f"{split}_nll"] == pytest.approx(probe.values[f"{split}_nll"], rel=1e-5)
    assert run.result.values["val_cka"] < 0.999, "the other end is somewhere else"


def test_a_point_is_rebuilt_bit_for_bit(run: Run, configure: Configure, workspace: Workspace) -> None:
    config = configure(wise_alpha=0.5, **{"optim.batch_norm": "train", "optim.lr": 1e-3})
    again, point = train(config, workspace=workspace), run.result.derived[1]
    measured = [name for name in STANDARD_METRICS if name not in CLOCKS]
    assert {name: again.values[name] for name in measured} == {name: point.values[name] for name in measured}
    assert again.predictions == point.predictions
    assert again.derived == ()
    assert again.values["val_nll"] != run.result.values["val_nll"]


def test_running_statistics_lie_on_the_line(run: Run, workspace: Workspace) -> None:
    end = run.trainer.model
    start = build_model(run.trainer.config, workspace.backbone(run.trainer.config), 3)
    half = Line(start, end).at(0.5).state_dict()
    means = [name for name in half if name.endswith(("running_mean", "running_var"))]
    assert means
    moved = [name for name in means if not torch.equal(start.state_dict()[name], end.state_dict()[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(half[name], (start.state_dict()[name] + end.state_dict()[name]) / 2)
    counts = [name for name in half if name.endswith("num_batches_tracked")]
    assert all(half[name] == end.state_dict()[name] for name in counts)


def test_the_line_ends_at_the_chosen_epoch(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "WISE_ALPHAS", (1.0,))
    best = Objective(metric="val_cka", direction="maximize")  # it only falls
    config = configure(checkpoint="best", **{"measure.wise": True, "optim.lr": 1e-3})
    trainer = Trainer(config, workspace=workspace, best_by=best)
    while not trainer.done:
        trainer.step()
    result = trainer.finish()
    assert (result.chosen_epoch, result.epochs) == (1, 2)
    first: EpochResult = trainer.epochs[0]
    assert result.derived[0].values["val_cka"] == first.values["val_cka"]
    assert first.values["val_cka"] != trainer.epochs[1].values["val_cka"]


def test_a_point_that_cannot_be_measured_is_left_out_and_says_why(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "WISE_ALPHAS", (0.0, 0.5))
    given = iter([{"sharpness": 0.1}, {"sharpness": np.inf}])

    def sharpness(model: FineTuned, batches: object) -> dict[str, float]:
        found = next(given, None)
        if found is None:
            raise FloatingPointError("the loss is nan")
        return (
            dict.fromkeys((name for name in STANDARD_METRICS if "sharpness" in name or name == "train_nll"), 0.1)
            | found
        )

    monkeypatch.setattr(trainer_module, "sharpness", sharpness)
    result = train(configure(**{"measure.wise": True, "optim.epochs": 1}), workspace=workspace)
    assert result.derived == ()
    assert result.facts["not_derived"] == [[0.0, "not every value is finite"], [0.5, "the loss is nan"]]


def test_a_linear_probe_has_no_line(configure: Configure, workspace: Workspace) -> None:
    result = train(configure(method="linear_probe", **{"measure.wise": True}), workspace=workspace)
    assert result.derived == ()
    assert "not_derived" not in result.facts


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"wise_alpha": 0.3, "measure.wise": True}, "measure.wise is true, and wise_alpha 0.3"),
        ({"measure.wise": True, "head": "cosine"}, "begins at a linear probe, but head is 'cosine'"),
        ({"wise_alpha": 0.3, "head": "mlp"}, "wise_alpha is 0.3, and the line begins at a linear probe"),
        ({"measure.wise": True, "method": "vpt"}, "method 'vpt' does not start at the pretrained network"),
        ({"wise_alpha": 0.3, "method": "vpt+repsim"}, "method 'vpt\\+repsim' does not start at the pretrained network"),
        ({"wise_alpha": 0.3, "method": "linear_probe"}, "'linear_probe' does not move the backbone"),
        ({"wise_alpha": 1.5}, "1.5 is not allowed; allowed: less than or equal to 1"),
        ({"wise_alpha": -0.5}, "-0.5 is not allowed; allowed: greater than or equal to 0"),
        ({"measure.wise": 1}, "1 is not allowed; allowed: a valid boolean"),
    ],
)
def test_what_has_no_line_is_refused(flat: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        TrialConfig.from_flat(flat)
    nothing = {key: value for key, value in flat.items() if key not in ("wise_alpha", "measure.wise")}
    TrialConfig.from_flat({**nothing, "wise_alpha": 1.0})


def test_configurations_keep_the_names_they_had_and_points_get_their_own() -> None:
    plain = TrialConfig()
    canonical = {"wise_alpha": 1.0, "measure.wise": False}
    assert TrialConfig.from_flat(canonical).config_id == plain.config_id == "b118939bee43"
    ids = {TrialConfig(wise_alpha=alpha).config_id for alpha in WISE_ALPHAS}
    assert len(ids | {plain.config_id}) == len(WISE_ALPHAS) + 1
    assert TrialConfig(wise_alpha=0.3).wise_words == "wise α=0.3"
    assert plain.wise_words == ""
