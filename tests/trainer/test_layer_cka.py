"""Similarity by layer and epoch (``measure.layers``): what it is, what it leaves alone, and what has none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from repsim import layer_similarity
from repsim.config import TrialConfig
from repsim.data.views import to_tensor
from repsim.errors import DegenerateInputError
from repsim.layers import collected, stage_widths, unreadable
from repsim.records import FACTS, EpochResult
from repsim.similarity.cka import debiased_cka
from repsim.teacher import Teacher
from repsim.trainer import Trainer
from repsim.workspace import Workspace
from tests.trainer.test_contract import numbers, same, weights

Configure = Callable[..., TrialConfig]
ASKED = {"measure.layers": "full"}
STAGES = {
    "test_efficientnet": [f"blocks.{i}" for i in range(5)],
    "test_vit": [f"blocks.{i}" for i in range(6)],
}


def trained(config: TrialConfig, workspace: Workspace) -> Trainer:
    trainer = Trainer(config, workspace=workspace)
    while not trainer.done:
        trainer.step()
    return trainer


def layers_of(trainer: Trainer) -> list[dict[str, float]]:
    return [epoch.layers for epoch in trainer.epochs]


@pytest.mark.parametrize("backbone", STAGES)
def test_a_linear_probe_leaves_every_layer_as_it_was(backbone: str, configure: Configure, workspace: Workspace) -> None:
    trainer = trained(configure(method="linear_probe", backbone=backbone, **ASKED), workspace)
    (found,) = layers_of(trainer)
    assert list(found) == list(stage_widths(trainer.model.backbone))
    assert all(abs(value - 1.0) <= 1e-6 for value in found.values())
    moved = trained(configure(method="full", backbone=backbone, **ASKED), workspace)
    assert min(moved.epochs[-1].layers.values()) < 1.0 - 1e-3


@pytest.mark.parametrize("backbone", STAGES)
def test_what_partial_freezes_is_one_and_what_it_trains_is_less(
    backbone: str, configure: Configure, workspace: Workspace
) -> None:
    config = configure(method="partial", backbone=backbone, **ASKED, **{"adapter.stages": 2, "optim.lr": 3e-3})
    trainer = trained(config, workspace)
    for found in layers_of(trainer):
        names = list(found)
        assert all(abs(found[name] - 1.0) <= 1e-6 for name in names[:-2])
        assert len(names) > 2
    assert all(trainer.epochs[-1].layers[name] < 1.0 - 1e-4 for name in names[-2:])


def direct(trainer: Trainer, pretrained: nn.Module, name: str) -> float:
    """The definition, computed by hand: one pass of each network, all maps kept, means over positions."""
    images = trainer._images
    probe = images.probe("val", trainer.config.data.probe_size)
    pixels = (to_tensor(images.images[probe]) - trainer.model.mean) / trainer.model.std
    features = []
    for network in (pretrained, trainer.model.backbone.eval()):
        kept: list[torch.Tensor] = []
        handle = network.get_submodule(name).register_forward_hook(lambda *given, kept=kept: kept.append(given[-1]))
        with torch.inference_mode():
            network(pixels)
        handle.remove()
        is_tokens = kept[0].ndim == 3
        patches = kept[0][:, network.num_prefix_tokens :] if is_tokens else kept[0].flatten(2).transpose(1, 2)
        features.append(patches.double().mean(dim=1).numpy())
    return debiased_cka(*features)


@pytest.mark.parametrize(
    ("backbone", "method"), [("test_efficientnet", "full"), ("test_vit", "full"), ("test_vit", "vpt")]
)
def test_the_values_are_those_of_the_definition(
    backbone: str, method: str, configure: Configure, workspace: Workspace
) -> None:
    side = 160 if backbone == "test_vit" else 32  # the size the transformer is built for
    more = {"optim.lr": 3e-3, "optim.epochs": 1, "data.probe_size": 8, "data.image_size": side}
    config = configure(method=method, backbone=backbone, **ASKED, **more)
    trainer = trained(config, workspace)
    assert len(trainer._images.val) > 8, "the probe is a part of the val images"
    pretrained = workspace.backbone(config).module
    assert min(trainer.epochs[-1].layers.values()) < 1.0 - 1e-4
    for name, value in trainer.epochs[-1].layers.items():
        assert value == pytest.approx(direct(trainer, pretrained, name), abs=1e-5)


@pytest.mark.parametrize("method", ["full", "linear_probe", "partial+repsim", "vpt"])
def test_asking_changes_no_other_number(method: str, configure: Configure, workspace: Workspace) -> None:
    plain = trained(configure(method=method, backbone="test_vit"), workspace)
    asked = trained(configure(method=method, backbone="test_vit", **ASKED), workspace)
    assert layers_of(plain) == [{}] * plain.n_epochs
    assert all(layers_of(asked))
    assert same(weights(plain), weights(asked))
    assert [epoch.values for epoch in plain.epochs] == [epoch.values for epoch in asked.epochs]
    assert [epoch.train_loss for epoch in plain.epochs] == [epoch.train_loss for epoch in asked.epochs]
    before, after = plain.finish(), asked.finish()
    assert numbers(before) == numbers(after)
    more = {"layers": STAGES["test_vit"], "not_measured": []}
    assert after.facts == before.facts | more
    assert set(after.facts) <= set(FACTS)
    assert "layers" not in plain.epochs[0].to_dict()


def test_a_checkpoint_continues_bit_for_bit_and_keeps_the_reasons(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(method="full", **ASKED)
    whole, interrupted, resumed = (Trainer(config, workspace=workspace) for _ in range(3))
    while not whole.done:
        whole.step()

    def undefined(before: object, after: object) -> float:
        raise DegenerateInputError("features are constant")

    with monkeypatch.context() as patch:
        patch.setattr(layer_similarity, "debiased_cka", undefined)
        assert interrupted.step().layers == {}
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    resumed.step()
    assert resumed.epochs[1].layers == whole.epochs[1].layers
    told = json.loads(json.dumps([epoch.to_dict() for epoch in whole.epochs]))
    assert [EpochResult.from_dict(one).layers for one in told] == layers_of(whole)
    reasons = [[f"layer_cka/{name}", "features are constant (epoch 1)"] for name in STAGES["test_efficientnet"]]
    assert resumed.finish().facts["not_measured"] == reasons
    assert whole.finish().facts["not_measured"] == []


def test_a_checkpoint_from_before_the_key_existed_continues(configure: Configure, workspace: Workspace) -> None:
    old, new = (Trainer(configure(method="full"), workspace=workspace) for _ in range(2))
    old.step()
    state = old.state_dict()
    flat = state["config"]
    assert isinstance(flat, dict)
    del flat["measure.layers"], state["layers"]
    new.load_state_dict(state)
    assert len(new.epochs) == 1
    asked = Trainer(configure(method="full", **ASKED), workspace=workspace)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        asked.load_state_dict(state)


def test_a_layer_with_nothing_to_compare_is_left_out_with_its_reason(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Teacher.clean_layers

    def flat(self: Teacher, indices: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        found = dict(whole(self, indices, names))
        return found | {"blocks.1": np.ones_like(found["blocks.1"])}

    monkeypatch.setattr(Teacher, "clean_layers", flat)
    for method in ("full", "linear_probe"):
        trainer = trained(configure(method=method, **ASKED), workspace)
        rest = [name for name in STAGES["test_efficientnet"] if name != "blocks.1"]
        assert all(list(found) == rest for found in layers_of(trainer))
        facts = trainer.finish().facts
        reason = "features are constant: every row is the same (epoch 1)"
        assert facts["not_measured"] == [["layer_cka/blocks.1", reason]]
        assert facts["layers"] == STAGES["test_efficientnet"]


def test_reasons_stand_beside_those_of_other_measures(configure: Configure, workspace: Workspace) -> None:
    trainer = trained(configure(method="linear_probe", **ASKED, **{"measure.similarity": "full"}), workspace)
    names = [name for name, _ in trainer.finish().facts["not_measured"]]  # type: ignore[attr-defined]
    assert "val_pwcca" in names
    assert not any(name.startswith("layer_cka/") for name in names)


def test_a_backbone_without_stages_has_no_layers_and_says_so(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_similarity, "stage_widths", lambda backbone: {})
    trainer = trained(configure(method="full", **ASKED), workspace)
    assert layers_of(trainer) == [{}, {}]
    facts = trainer.finish().facts
    assert facts["not_measured"] == [["layer_cka/*", "test_efficientnet has no stages that timm names"]]
    assert facts["layers"] == []


class Odd(nn.Module):
    """Stages as timm names them, most of them not what it says."""

    def __init__(self) -> None:
        super().__init__()
        names = ("plain", "listed", "flat", "wide", "twice", "idle", "gone")
        self.feature_info = [{"module": name, "num_chs": 3} for name in names]
        for name in names[:-1]:
            self.add_module(name, nn.Conv2d(3, 4 if name == "wide" else 3, 1))
        self.listed = Several()
        self.flat = nn.Flatten()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.twice(self.twice(self.listed(self.plain(images))[0]))
        self.wide(x)
        found: torch.Tensor = self.flat(x)
        return found


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_stages_that_are_not_what_timm_says_are_found_out() -> None:
    network = Odd().eval()
    reasons = unreadable(network, torch.zeros(1, 3, 4, 4))
    assert reasons == {
        "listed": "what it returns is no map of features",
        "flat": "what it returns is no map of features",
        "wide": "what it returns has not the 3 channels that timm says",
        "twice": "it is run 2 times in a pass",
        "idle": "it is run 0 times in a pass",
        "gone": "there is no module of this name",
    }
    assert not any(module._forward_hooks for module in network.modules())


def test_an_unreadable_stage_is_left_out_and_the_others_measured(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(method="full", **ASKED)
    teacher = workspace.teacher(config)
    monkeypatch.setattr(teacher, "unreadable_layers", {"blocks.3": "it is run 0 times in a pass"})
    trainer = trained(config, workspace)
    assert all(list(found) == [f"blocks.{i}" for i in (0, 1, 2, 4)] for found in layers_of(trainer))
    facts = trainer.finish().facts
    assert facts["not_measured"] == [["layer_cka/blocks.3", "it is run 0 times in a pass"]]


def test_pretrained_features_are_computed_once(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(method="full", **ASKED)
    trained(config, workspace)

    def again(*given: object) -> None:
        raise AssertionError("they lie in the cache")

    monkeypatch.setattr(Teacher, "_means_of", again)
    assert all(layers_of(trained(configure(method="full", seed=3, **ASKED), workspace)))


def test_only_the_rows_asked_for_are_kept_over_batches_of_any_size_and_no_hook_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True))
    images = torch.randn(11, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rows = np.array([0, 3, 4, 9])
    with torch.no_grad():
        expected = network[0](images).mean(dim=(2, 3))[torch.from_numpy(rows)]
        with collected(network, ["0"], rows) as found:
            for start, end in ((0, 4), (4, 5), (5, 8), (8, 11)):
                network(images[start:end])
        assert [len(part) for part in found["0"]] == [2, 1, 0, 1]
        torch.testing.assert_close(torch.cat(found["0"]), expected)
        network(images)
    assert len(found["0"]) == 4
    assert not network[0]._forward_hooks
